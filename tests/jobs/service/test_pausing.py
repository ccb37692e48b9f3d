"""A job may rest: its state is kept, its time stands still, nobody takes it."""

from typing import Any

import psycopg
import pytest

from jobs.errors import JobNotFound, JobNotPausable, JobNotPaused
from jobs.service import for_upkeep
from jobs.service.job_service import JobService
from jobs.states import JobStatus
from tests.support.jobs import a_checkpoint, a_spec, claimed, inspected, running, submitted

pytestmark = pytest.mark.usefixtures("empty")


def statuses(service: JobService, job_id: str) -> list[Any]:
    return [event.data["status"] for event in service.events(job_id) if event.type == "status"]


def test_a_queued_job_rests_at_once_and_waits_again_at_its_place(service: JobService) -> None:
    job, behind = inspected(service), inspected(service)
    assert service.pause(job.id).status is JobStatus.PAUSED
    assert service.pause(job.id).status is JobStatus.PAUSED
    assert service.queue_positions([service.get(job.id), behind]) == {behind.id: 1}
    bells = service.doorbell.pending("distill")
    assert bells is not None

    resumed = service.resume(job.id)
    assert (resumed.status, resumed.attempt) == (JobStatus.QUEUED, 1)
    assert service.doorbell.pending("distill") == bells + 1
    assert service.resume(job.id) == resumed
    assert statuses(service, job.id) == ["validating", "queued", "paused", "queued"]
    claimed(service, "distill", job)


def test_a_running_job_rests_when_its_worker_puts_it_away(service: JobService) -> None:
    claim = running(service)
    service.checkpointed(claim, a_checkpoint())
    assert not service.heartbeat(claim).pause_requested
    for _ in range(2):
        asked = service.pause(claim.job.id)
        assert (asked.status, asked.pause_requested) == (JobStatus.RUNNING, True)
    assert service.heartbeat(claim).pause_requested

    paused = service.release(claim, counts_attempt=False, reason="paused")
    assert (paused.status, paused.pause_requested, paused.attempt) == (JobStatus.PAUSED, False, 1)
    assert service.release(claim, counts_attempt=False, reason="paused") == paused, "a repeated call"
    assert service.claim("distill", "tests") is None
    assert for_upkeep.reap(service) == for_upkeep.expire(service) == 0

    service.resume(claim.job.id)
    again = claimed(service, "distill", paused)
    assert len(service.checkpoints(again)) == 1
    assert statuses(service, claim.job.id).count("running") == 3  # claimed, asked to pause, claimed


def test_a_pause_under_way_can_be_taken_back(service: JobService) -> None:
    claim = running(service)
    service.pause(claim.job.id)
    assert not service.resume(claim.job.id).pause_requested
    assert not service.heartbeat(claim).pause_requested
    # Its worker may have begun to put the job away all the same.
    job = service.release(claim, counts_attempt=False, reason="paused")
    assert job.status is JobStatus.QUEUED


def test_a_job_whose_worker_is_lost_rests_all_the_same(service: JobService, database_url: str) -> None:
    claim = running(service)
    service.pause(claim.job.id)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE job SET lease_until = now() - interval '1 s' WHERE claimed_at < now()")
    assert for_upkeep.reap(service) == 1
    job = service.get(claim.job.id)
    assert (job.status, job.attempt) == (JobStatus.PAUSED, 2)


def test_rest_does_not_count_as_time_spent(service: JobService, database_url: str) -> None:
    claim = running(service, spec=a_spec(max_runtime_seconds=60))
    service.pause(claim.job.id)
    service.release(claim, counts_attempt=False, reason="paused")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE job SET ran_seconds = 30, started_at = now() - interval '1 hour'")
    assert for_upkeep.expire(service) == 0
    job = service.resume(claim.job.id)
    control = service.heartbeat(claimed(service, "distill", job))
    assert control.remaining_seconds is not None
    assert 20 < control.remaining_seconds <= 30


def test_a_paused_job_can_be_cancelled(service: JobService) -> None:
    job = inspected(service)
    service.pause(job.id)
    assert service.cancel(job.id).status is JobStatus.CANCELLED
    with pytest.raises(JobNotPaused):
        service.resume(job.id)


def test_cancel_beats_pause(service: JobService) -> None:
    claim = running(service)
    service.pause(claim.job.id)
    service.cancel(claim.job.id)
    with pytest.raises(JobNotPausable, match="being cancelled"):
        service.pause(claim.job.id)
    ended = service.release(claim, counts_attempt=False, reason="paused")
    assert (ended.status, ended.pause_requested) == (JobStatus.CANCELLED, False)


def test_what_cannot_rest_says_so(service: JobService) -> None:
    done, validating = running(service), submitted(service)
    service.succeed(done, [], {})
    for job_id in (validating.id, done.job.id):
        with pytest.raises(JobNotPausable):
            service.pause(job_id)
        with pytest.raises(JobNotPaused):
            service.resume(job_id)
    for ask in (service.pause, service.resume):
        with pytest.raises(JobNotFound):
            ask("nobody")
