"""A worker that lost its claim writes nothing more, and claims the next job."""

import psycopg
import pytest

from jobs.settings import Settings
from jobs.values.claims import StageResult
from tests.support.services import Services
from tests.worker.conftest import FAKE_CORE, Submit, wait_for
from worker.claims.held_job import HeldJob
from worker.claims.lease import StopReason
from worker.claims.outcomes import Crashed, Refused
from worker.claims.supervisor import Supervisor
from worker.claims.workbench import Workbench
from worker.flows import FLOWS

OUTCOMES = {
    "crashed": Crashed("it was ended by SIGKILL", by_force=True),
    "refused": Refused("diverged", "The loss is not a number.", "Lower the rate."),  # type: ignore[arg-type]
    "a bug": RuntimeError("a bug"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_claim_lost_before_its_release_changes_neither_job_nor_worker(
    service: Services, settings: Settings, submit: Submit, outcome: str
) -> None:
    jobs = [submit(), submit()]

    def lose_the_first(job: HeldJob, bench: Workbench) -> StageResult:
        if job.id != jobs[0]:
            return FLOWS["distill", "inspect"](job, bench)
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            connection.execute("UPDATE job SET fence = fence + 1 WHERE id = %s", [job.id])
        wait_for(lambda: job.lease.stop_reason() is StopReason.LOST)
        raise OUTCOMES[outcome]

    supervisor = Supervisor(settings, {("distill", "inspect"): lose_the_first}, FAKE_CORE)
    try:
        supervisor.run_jobs("inspect")
    finally:
        supervisor.close()
    first, second = service.clients.get(jobs[0]), service.clients.get(jobs[1])
    assert (first.status, first.attempt, first.error) == ("validating", 1, None)
    assert second.status == "queued"
