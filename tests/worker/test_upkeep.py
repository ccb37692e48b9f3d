import signal
import threading
from pathlib import Path

import psycopg
import pytest

from cli.embedded import EmbeddedPostgres, EmbeddedValkey
from jobs.service import JobService
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.worker.conftest import StartProcess, Submit, wait_for
from worker.supervisor import Supervisor
from worker.upkeep import Upkeep


def expire_leases(settings: Settings) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE job SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL"
        )


def test_a_job_whose_bell_was_lost_is_rung_for_again(
    service: JobService, submit: Submit, start_process: StartProcess, valkey: EmbeddedValkey
) -> None:
    submit()
    valkey.flush()
    start_process("worker.upkeep")
    wait_for(lambda: service.doorbell.pending("inspect"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    start_process: StartProcess,
    tmp_path: Path,
    submit: Submit,
    service: JobService,
    valkey: EmbeddedValkey,
    number: int,
) -> None:
    submit()
    valkey.flush()
    process = start_process("worker.upkeep")
    wait_for(lambda: service.doorbell.pending("inspect"))  # it is at work
    process.send_signal(number)
    assert process.wait(timeout=10) == 0


def test_it_outlives_an_outage_of_the_database(
    service: JobService,
    settings: Settings,
    submit: Submit,
    supervisor: Supervisor,
    postgres: EmbeddedPostgres,
) -> None:
    upkeep = Upkeep(settings)
    stop = threading.Event()
    thread = threading.Thread(target=upkeep.run, args=(stop,))
    thread.start()
    postgres.kill()
    postgres.start()
    job_id = submit()
    assert service.claim("inspect", "a worker that dies") is not None
    job = wait_for(lambda: (found := service.get(job_id)).attempt == 2 and found)
    assert job.status is JobStatus.VALIDATING
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_after_an_outage_holders_may_renew_before_anything_is_reaped(
    service: JobService, settings: Settings, submit: Submit, postgres: EmbeddedPostgres
) -> None:
    upkeep = Upkeep(settings)
    job_id = submit()
    claim = service.claim("inspect", "a worker that lives")
    assert claim is not None
    postgres.kill()
    upkeep.round()
    postgres.start()
    expire_leases(settings)
    upkeep.round()
    assert not service.heartbeat(claim).lost
    assert service.get(job_id).attempt == 1
