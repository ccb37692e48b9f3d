import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.support.hooked_jobs import ended, make_due, only
from tests.support.receiver import SECRET_TEXTS, Receiver, receiving
from tests.support.services import Services
from tests.worker.conftest import StartProcess, Submit, wait_for
from worker import webhooks
from worker.upkeep import Upkeep


def expire_leases(settings: Settings) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE job SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL"
        )


@pytest.fixture
def upkeep(settings: Settings) -> Iterator[Upkeep]:
    with contextlib.closing(Upkeep(settings)) as upkeep:
        yield upkeep


def test_a_lost_ring_is_repeated_and_sigterm_ends_upkeep_in_order(
    service: Services, submit: Submit, start_process: StartProcess, valkey: EmbeddedValkey
) -> None:
    submit()
    valkey.flush()
    process = start_process("worker.upkeep")
    wait_for(lambda: service.resources.doorbell.pending("inspect"))
    process.terminate()
    assert process.wait(timeout=10) == 0


def test_upkeep_survives_an_outage_of_the_database(
    service: Services, upkeep: Upkeep, submit: Submit, postgres: EmbeddedPostgres
) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=upkeep.run, args=(stop,))
    thread.start()
    postgres.kill()
    postgres.start()
    job_id = submit()
    assert service.workers.claim("inspect", "a worker that dies") is not None
    job = wait_for(lambda: (job := service.clients.get(job_id)).attempt == 2 and job)
    assert job.status is JobStatus.VALIDATING
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_after_an_outage_holders_can_renew_leases_before_the_reaper_runs(
    service: Services, settings: Settings, upkeep: Upkeep, submit: Submit, postgres: EmbeddedPostgres
) -> None:
    job_id = submit()
    claim = service.workers.claim("inspect", "a worker that lives")
    assert claim is not None
    postgres.kill()
    upkeep.round()
    postgres.start()
    expire_leases(settings)
    upkeep.round()
    assert not service.workers.heartbeat(claim).lost
    assert service.clients.get(job_id).attempt == 1


class TestWebHooks:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"webhook_private_addresses": True})

    def test_messages_are_delivered_and_logs_contain_no_secret(
        self, service: Services, start_process: StartProcess, tmp_path: Path
    ) -> None:
        with receiving(Receiver(answers=[410])) as receiver:
            refused_job, job_id = ended(service, receiver.url), ended(service, receiver.url)
            process = start_process("worker.upkeep")
            wait_for(lambda: all(only(service, each).last_status_code for each in (refused_job, job_id)))
            states = {only(service, each).status for each in (refused_job, job_id)}
            process.terminate()
            assert process.wait(timeout=20) == 0
        assert states == {"failed", "delivered"}
        log = (tmp_path / "processes.log").read_text()
        assert f"job.cancelled of job {job_id}" in log
        assert not any(text in log for text in (*SECRET_TEXTS, "token=1", "answer of the receiver"))

    def test_a_slow_receiver_keeps_no_lost_job_waiting(
        self, service: Services, submit: Submit, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 60)
        answering, stop = threading.Event(), threading.Event()

        async def hang() -> None:
            await asyncio.to_thread(answering.wait, 30)

        with receiving(Receiver(before=hang)) as receiver:
            slow, job_id = ended(service, receiver.url), submit()
            assert service.workers.claim("inspect", "a worker that dies") is not None
            thread = threading.Thread(target=upkeep.run, args=(stop,))
            thread.start()
            wait_for(lambda: receiver.received)
            wait_for(lambda: service.clients.get(job_id).attempt == 2)
            assert only(service, slow).status == "pending"
            answering.set()
            stop.set()
            thread.join(20)
        assert only(service, slow).status == "delivered"

    def test_a_message_of_a_killed_sender_is_sent_again_under_its_id(
        self, service: Services, start_process: StartProcess, settings: Settings
    ) -> None:
        processes: list[subprocess.Popen[bytes]] = []

        async def kill() -> None:
            processes[0].kill()

        with receiving(Receiver(before=kill)) as receiver:
            job_id = ended(service, receiver.url)
            processes.append(start_process("worker.upkeep"))
            wait_for(lambda: processes[0].poll() is not None)
            assert (only(service, job_id).status, only(service, job_id).attempts) == ("pending", 1)
            make_due(settings.database_url)
            start_process("worker.upkeep")
            wait_for(lambda: only(service, job_id).status == "delivered")
            first, second = receiver.received
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == only(service, job_id).id
