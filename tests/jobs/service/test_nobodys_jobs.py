"""No job stays without a holder after a claim whose answer was lost, or a late cancel."""

import time

import pytest

from jobs.errors import ServiceUnavailable
from jobs.rows import repository
from jobs.states import JobStatus
from jobs.values.claims import StageResult
from tests.support.jobs import claimed, inspected, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")


def test_a_claim_without_an_answer_is_returned_again(service: Services) -> None:
    job, other = inspected(service), inspected(service)
    first = service.workers.claim("distill", "here:1:1")
    again = service.workers.claim("distill", "here:1:1", repeated=True)
    assert first is not None
    assert again is not None
    assert (again.job.id, again.fence) == (job.id, first.fence)
    assert not service.workers.heartbeat(again).lost
    following = service.workers.claim("distill", "here:1:2")
    assert following is not None
    assert following.job.id == other.id


def test_a_repeated_claim_without_a_held_job_takes_the_next_one(service: Services) -> None:
    assert service.workers.claim("inspect", "here:1:1", repeated=True) is None
    job = submitted(service)
    claim = service.workers.claim("inspect", "here:1:1", repeated=True)
    assert claim is not None
    assert (claim.job.id, claim.fence) == (job.id, 1)


def test_a_released_job_does_not_count_as_held(service: Services) -> None:
    inspected(service)
    first = service.workers.claim("distill", "here:1:1")
    assert first is not None
    service.workers.release(first, counts_attempt=False, reason="drained")
    second = service.workers.claim("distill", "here:1:1", repeated=True)
    assert second is not None
    assert second.fence == first.fence + 1


def test_a_job_cancelled_while_its_inspection_ended_is_cancelled(service: Services) -> None:
    claim = claimed(service, "inspect", submitted(service))
    service.clients.cancel(claim.job.id)
    ended_job = service.workers.end_stage(claim, StageResult())
    assert ended_job.status == JobStatus.CANCELLED
    assert service.workers.end_stage(claim, StageResult()) == ended_job


def test_a_transaction_that_stalls_releases_its_row(service: Services) -> None:
    """As a worker under SIGSTOP does: the reaper passes locked rows over."""
    job = submitted(service)

    def stand_still() -> None:
        with service.resources.database.transaction() as session:
            repository.lock_job(session, job.id).phase = "x"
            session.flush()
            ask = session.connection().exec_driver_sql
            ask("SET LOCAL idle_in_transaction_session_timeout = '50ms'")  # ten seconds outside of tests
            time.sleep(0.5)

    with pytest.raises(ServiceUnavailable):
        stand_still()
    assert service.clients.get(job.id) == job
    assert service.workers.claim("inspect", "another") is not None
