"""Real jobs with faults at random moments end with the student of an undisturbed run.

`NAYER_CHAOS_KILLS=200` sets the number of faults, `NAYER_CHAOS_STRIKES_SEED=7` their order.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from jobs.states import JobStatus
from tests.chaos import invariants
from tests.chaos.real.fleet import SECRET, Fleet, Servers, wait_for
from tests.chaos.real.kills import COSTLY, FREE, NO_HARM_TO_A_RUN, TAKES_THE_JOB, Strike
from tests.chaos.real.recoveries import Fault
from tests.support import small_runs
from tests.support.jobs import inspected_as
from tests.support.seaweedfs import EmbeddedSeaweed
from tests.support.services import fresh_database

STRIKES = int(os.environ.get("NAYER_CHAOS_KILLS", "25"))
STRIKES_OF_A_JOB = 8
END_SECONDS = 240
StruckFault = tuple[Strike, Fault]
# Ten to twenty seconds on a CPU, so that it can be struck a few times.
CONFIG = small_runs.CONFIG.model_copy(update={"epochs": 10, "generator_steps": 3, "student_steps": 40})


@pytest.fixture
def fleet(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, seaweedfs: EmbeddedSeaweed, tmp_path: Path
) -> Iterator[Fleet]:
    valkey.flush()
    with fresh_database(postgres) as url:
        servers = Servers(postgres, valkey, seaweedfs, url.rsplit("/", 1)[-1])
        fleet = Fleet(servers, tmp_path, celery="worker.celery_app", max_attempts=STRIKES_OF_A_JOB + 1)
        fleet.members = [member for member in fleet.members if member not in fleet.inspectors]
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()


STALE = """
SELECT count(*) FROM event AS late
WHERE fence < (
    SELECT max(fence) FROM event AS before WHERE before.job_id = late.job_id AND before.seq < late.seq
)
"""
TWICE = """
SELECT count(*) FROM (
    SELECT job_id FROM event
    WHERE type = 'status' AND data ->> 'status' IN ('succeeded', 'failed', 'cancelled')
    GROUP BY job_id HAVING count(*) > 1
) AS found
"""


def count(fleet: Fleet, statement: str) -> int:
    with fleet.service.resources.database.transaction() as session:
        return int(session.execute(text(statement)).scalar_one())


def steps(fleet: Fleet, job_id: str) -> int:
    return sum(event.type == "metrics" for event in fleet.service.clients.events(job_id, limit=100_000))


def wait_for_a_step(fleet: Fleet, job_id: str, after: Fault | None) -> None:
    """Wait until a job has made a step from now and has recovered from a fault, or has ended."""
    before = steps(fleet, job_id)

    def further() -> bool:
        if fleet.service.clients.get(job_id).is_terminal:
            return True
        return steps(fleet, job_id) > before and (after is None or after.recovery(fleet.service) is not None)

    wait_for(further, END_SECONDS, f"job {job_id} makes a step after {after}")


def strike_until_it_ends(fleet: Fleet, job_id: str, chance: random.Random, limit: int) -> list[StruckFault]:
    """Inject faults at random moments while a job runs; return them."""
    done: list[StruckFault] = []
    fault: Fault | None = None
    for _ in range(min(STRIKES_OF_A_JOB, limit)):
        wait_for_a_step(fleet, job_id, fault)
        time.sleep(chance.uniform(0, 1.5))
        job = fleet.service.clients.get(job_id)
        if job.status is not JobStatus.RUNNING:
            fault = None
            continue
        strike = chance.choice(COSTLY if chance.random() < 0.6 else FREE)
        holder, struck_at = fleet.worker_of(job_id), time.time()
        strike(fleet, holder, chance)
        takes = strike in TAKES_THE_JOB
        what = f"{strike.__name__} of {job_id[-6:]} at step {steps(fleet, job_id)}"
        fault = Fault(what, job_id, struck_at if takes else time.time(), job.fence if takes else None)
        done.append((strike, fault))
    return done


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_random_strikes_lose_nothing_and_change_no_bit(
    fleet: Fleet, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("NAYER_CHAOS_STRIKES_SEED", "0"))
    chance = random.Random(seed)
    canonical = tmp_path / "canonical"
    canonical.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # sums in another order would give another student
        small_runs.write_inputs(canonical, CONFIG, student_architecture="wrn_10_1")
        whole = small_runs.undisturbed(canonical, tmp_path / "whole")
        student = (whole / "student.safetensors").read_bytes()
    strikes: list[StruckFault] = []
    exact = unfinished = jobs = 0
    while len(strikes) < STRIKES:
        job_id = inspected_as(fleet.service, fleet.storage, canonical)
        strikes += strike_until_it_ends(fleet, job_id, chance, STRIKES - len(strikes))
        wait_for(
            lambda job_id=job_id: fleet.service.clients.get(job_id).is_terminal,
            END_SECONDS,
            f"the end of {job_id}",
        )
        job = invariants.check_job(fleet.service, fleet.storage, job_id)
        jobs += 1
        unfinished += job.status is not JobStatus.SUCCEEDED
        bodies = [
            b"".join(fleet.storage.open_range(a.key)) for a in job.artifacts if a.name.startswith("stud")
        ]
        exact += bodies == [student]
    recoveries = [
        fault.recovery(fleet.service) for strike, fault in strikes if strike not in NO_HARM_TO_A_RUN
    ]
    record_property("recoveries", [recovery.row() for recovery in recoveries if recovery is not None])
    record_property("real_kills", len(strikes))
    record_property("struck", dict(Counter(strike.__name__ for strike, _ in strikes)))
    record_property("real_jobs", jobs)
    record_property("lost_real", unfinished)
    record_property("bit_exact", f"{exact} of {jobs}")
    stale, twice = count(fleet, STALE), count(fleet, TWICE)
    record_property("stale_writes", stale)
    record_property("duplicate_completions", twice)
    assert SECRET not in fleet.logs(), "I12"
    invariants.check_files(fleet.service, fleet.storage)
    assert (unfinished, exact, stale, twice) == (0, jobs, 0, 0)
