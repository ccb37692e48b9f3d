"""A paused job keeps its state, uses no time, and is claimed by no worker."""

from typing import Any

import psycopg
import pytest

from jobs.errors import JobNotFound, JobNotPausable, JobNotPaused
from jobs.states import JobStatus
from jobs.values.claims import StageResult
from tests.support.jobs import a_checkpoint, a_spec, claimed, inspected, running, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")


def statuses(service: Services, job_id: str) -> list[Any]:
    return [event.data["status"] for event in service.clients.events(job_id) if event.type == "status"]


def test_a_queued_job_is_paused_at_once_and_keeps_its_place(service: Services) -> None:
    job, behind = inspected(service), inspected(service)
    assert service.clients.pause(job.id).status is JobStatus.PAUSED
    assert service.clients.pause(job.id).status is JobStatus.PAUSED
    assert service.clients.queue_positions([service.clients.get(job.id), behind]) == {behind.id: 1}
    rings = service.resources.doorbell.pending("distill")
    assert rings is not None

    resumed_job = service.clients.resume(job.id)
    assert (resumed_job.status, resumed_job.attempt) == (JobStatus.QUEUED, 1)
    assert service.resources.doorbell.pending("distill") == rings + 1
    assert service.clients.resume(job.id) == resumed_job
    assert statuses(service, job.id) == ["validating", "queued", "paused", "queued"]
    claimed(service, "distill", job)


def test_a_running_job_is_paused_when_its_worker_releases_it(service: Services) -> None:
    claim = running(service)
    service.workers.add_checkpoint(claim, a_checkpoint())
    assert not service.workers.heartbeat(claim).pause_requested
    for _ in range(2):
        running_job = service.clients.pause(claim.job.id)
        assert (running_job.status, running_job.pause_requested) == (JobStatus.RUNNING, True)
    assert service.workers.heartbeat(claim).pause_requested

    paused_job = service.workers.release(claim, counts_attempt=False, reason="paused")
    assert (paused_job.status, paused_job.pause_requested, paused_job.attempt) == (JobStatus.PAUSED, False, 1)
    assert service.workers.release(claim, counts_attempt=False, reason="paused") == paused_job, (
        "a repeated call"
    )
    assert service.workers.claim("distill", "tests") is None
    assert service.upkeep.reap() == service.upkeep.expire() == 0

    service.clients.resume(claim.job.id)
    again = claimed(service, "distill", paused_job)
    assert len(service.workers.checkpoints(again)) == 1
    assert statuses(service, claim.job.id).count("running") == 3  # claimed, asked to pause, claimed


def test_a_requested_pause_can_be_withdrawn(service: Services) -> None:
    claim = running(service)
    service.clients.pause(claim.job.id)
    assert not service.clients.resume(claim.job.id).pause_requested
    assert not service.workers.heartbeat(claim).pause_requested
    # Its worker may have begun to put the job away all the same.
    job = service.workers.release(claim, counts_attempt=False, reason="paused")
    assert job.status is JobStatus.QUEUED


def test_a_requested_pause_holds_after_the_worker_is_lost(service: Services, database_url: str) -> None:
    claim = running(service)
    service.clients.pause(claim.job.id)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE job SET lease_until = now() - interval '1 s' WHERE claimed_at < now()")
    assert service.upkeep.reap() == 1
    job = service.clients.get(claim.job.id)
    assert (job.status, job.attempt) == (JobStatus.PAUSED, 2)


def test_paused_time_does_not_count_as_runtime(service: Services, database_url: str) -> None:
    claim = running(service, spec=a_spec(max_runtime_seconds=60))
    service.clients.pause(claim.job.id)
    service.workers.release(claim, counts_attempt=False, reason="paused")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE job SET ran_seconds = 30, started_at = now() - interval '1 hour'")
    assert service.upkeep.expire() == 0
    job = service.clients.resume(claim.job.id)
    control = service.workers.heartbeat(claimed(service, "distill", job))
    assert control.remaining_seconds is not None
    assert 20 < control.remaining_seconds <= 30


def test_a_paused_job_can_be_cancelled(service: Services) -> None:
    job = inspected(service)
    service.clients.pause(job.id)
    assert service.clients.cancel(job.id).status is JobStatus.CANCELLED
    with pytest.raises(JobNotPaused):
        service.clients.resume(job.id)


def test_a_cancel_has_priority_over_a_pause(service: Services) -> None:
    claim = running(service)
    service.clients.pause(claim.job.id)
    service.clients.cancel(claim.job.id)
    with pytest.raises(JobNotPausable, match="being cancelled"):
        service.clients.pause(claim.job.id)
    ended_job = service.workers.release(claim, counts_attempt=False, reason="paused")
    assert (ended_job.status, ended_job.pause_requested) == (JobStatus.CANCELLED, False)


def test_a_job_that_is_validated_or_has_ended_cannot_be_paused(service: Services) -> None:
    ended_claim, validating = running(service), submitted(service)
    service.workers.end_stage(ended_claim, StageResult(artifacts=[]))
    for job_id in (validating.id, ended_claim.job.id):
        with pytest.raises(JobNotPausable):
            service.clients.pause(job_id)
        with pytest.raises(JobNotPaused):
            service.clients.resume(job_id)
    for ask in (service.clients.pause, service.clients.resume):
        with pytest.raises(JobNotFound):
            ask("nobody")
