"""The API's operations: submit, read, pause, resume, cancel and delete jobs, and read their deliveries."""

import time
from collections.abc import Mapping, Sequence

from jobs.errors import (
    IdempotencyConflict,
    JobNotTerminal,
    ServiceUnavailable,
)
from jobs.rows import event_log, outbox, repository, statistics, waiting_jobs
from jobs.rows.tables import SCHEMA_VERSION, JobTable
from jobs.service import artifacts
from jobs.service.resources import Resources
from jobs.service.transitions import requests, submission
from jobs.states import JobStatus
from jobs.values.files import Artifact
from jobs.values.jobs import Job, JobSummary, NewJob
from jobs.values.log import JobEvent, MetricPoint
from jobs.values.overview import JobStatistics, Page
from jobs.webhooks.deliveries import Delivery


class ClientJobs:
    """The API's operations on jobs. Every method is one transaction; doorbells ring after its commit.

    Every method may also raise `ServiceUnavailable` when the database does not answer: no change is
    half done, and the call may be repeated.
    """

    def __init__(self, resources: Resources):
        self._resources = resources
        self._database = resources.database

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Create a job in `validating` and ring for the inspectors; its files are already stored.

        Returns:
            The job, and whether an equal request with its `Idempotency-Key` created it before.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        with self._database.transaction() as session:
            row = submission.submit(session, new)
            if row is None:
                assert new.idempotency_key is not None  # noqa: S101 - there is no other conflict
                return _require_same(repository.find_by_key(session, new.idempotency_key), new), True
            job = repository.save(session, row)
        self._resources.ring_for(job)
        return job, False

    def get(self, job_id: str) -> Job:
        """Read a job with its artifacts.

        Raises:
            JobNotFound: there is none; `job_id` may be any string.
        """
        with self._database.transaction() as session:
            return repository.read_job(session, job_id).as_job()

    def list_jobs(self, status: JobStatus | None = None, limit: int = 20, after: str | None = None) -> Page:
        """Read jobs newest first; `after` is the `next` of the page before.

        Raises:
            JobNotFound: `after` names no job.
        """
        with self._database.transaction() as session:
            rows = repository.list_jobs(session, status, limit + 1, after)
            jobs = [row.as_summary() for row in rows[:limit]]
        has_more = len(rows) > limit
        return Page(jobs, has_more, jobs[-1].id if has_more else None)

    def cancel(self, job_id: str) -> Job:
        """Request the end of a job; idempotent, and a job that has ended stays as it is.

        A job that no worker holds is `cancelled` when this returns. A worker learns of the request at
        its next heartbeat; upkeep cancels the job if that worker is gone.
        """
        with self._database.transaction() as session:
            row = repository.lock_job(session, job_id)
            requests.request_cancel(session, row, repository.now(session))
            return repository.save(session, row)

    def pause(self, job_id: str) -> Job:
        """Request a pause, with the job's state kept in a checkpoint; idempotent.

        A queued job is `paused` when this returns. The worker of a running one learns of the request at
        its next heartbeat; upkeep pauses the job if that worker is gone.

        Raises:
            JobNotPausable: it is being validated or cancelled, or it has ended.
        """
        with self._database.transaction() as session:
            row = repository.lock_job(session, job_id)
            requests.request_pause(session, row)
            return repository.save(session, row)

    def resume(self, job_id: str) -> Job:
        """Let a paused job wait for a worker again; idempotent. A pause in progress is cancelled.

        Raises:
            JobNotPaused: it is being validated, or it has ended.
        """
        with self._database.transaction() as session:
            row = repository.lock_job(session, job_id)
            requests.resume(session, row, repository.now(session))
            job = repository.save(session, row)
        self._resources.ring_for(job)
        return job

    def delete(self, job_id: str) -> list[str]:
        """Remove a finished job: its row, events, metrics and artifacts.

        Returns:
            The keys in the store that no row names any more. The caller may delete these files at
            once; the sweep of upkeep removes those that are left.

        Raises:
            JobNotTerminal: the job still runs.
        """
        with self._database.transaction() as session:
            row = repository.lock_job(session, job_id)
            if not JobStatus(row.status).is_terminal:
                raise JobNotTerminal(f"Job {job_id} is {row.status}.", "Cancel it first.")
            keys = sorted({file.key for file in row.files})
            repository.delete_job(session, job_id)
            still_named = repository.kept_keys(session, keys)
        return [key for key in keys if key not in still_named]

    def events(self, job_id: str, after: int = 0, limit: int = 200) -> list[JobEvent]:
        """Read the entries of a job's log with `seq` > `after`, in order.

        Raises:
            JobNotFound: there is no such job.
        """
        with self._database.transaction() as session:
            repository.require_job(session, job_id)
            return event_log.read_events(session, {job_id: after}, limit)

    def events_of_many(self, after: Mapping[str, int], limit: int = 1000) -> list[JobEvent]:
        """Read the new entries of many logs with one query, in the order of job and seq.

        Args:
            after: the last known `seq` by job; a job that does not exist has no entries.
            limit: the largest number of entries; call again with the new positions.
        """
        if not after:
            return []
        with self._database.transaction() as session:
            return event_log.read_events(session, after, limit)

    def metrics(
        self, job_id: str, names: Sequence[str] | None = None, max_points: int = 2000
    ) -> dict[str, list[MetricPoint]]:
        """Read series by name in order of step, each thinned to at most `max_points` with both ends kept.

        Raises:
            JobNotFound: there is no such job.
        """
        with self._database.transaction() as session:
            repository.require_job(session, job_id)
            return event_log.read_metrics(session, job_id, names, max_points)

    def artifact(self, job_id: str, name: str) -> Artifact:
        """Read one artifact that can be downloaded.

        Raises:
            ArtifactNotReady: the job has not ended, and may still produce it.
            ArtifactExpired: the job ended longer ago than artifacts are kept.
            ArtifactNotFound: the job has ended without it.
        """
        with self._database.transaction() as session:
            job = repository.read_job(session, job_id).as_job()
            return artifacts.find(
                job, name, repository.now(session), self._resources.settings.keep_artifacts_seconds
            )

    def deliveries(
        self, job_id: str, limit: int = 100, after: str | None = None
    ) -> tuple[list[Delivery], bool]:
        """Read the messages to a job's web hook, newest first, those older than the message `after`.

        Returns:
            At most `limit` of them, and whether there are more.

        Raises:
            JobNotFound: there is no such job.
            DeliveryNotFound: `after` names none of its messages.
        """
        with self._database.transaction() as session:
            repository.require_job(session, job_id)
            rows = outbox.read(session, job_id, limit + 1, after)
            return [row.as_delivery() for row in rows[:limit]], len(rows) > limit

    def redeliver(self, job_id: str, delivery_id: str) -> Delivery:
        """Make a message due now, even if it was delivered or has failed.

        Raises:
            JobNotFound: there is no such job.
            DeliveryNotFound: it has no such message.
        """
        with self._database.transaction() as session:
            repository.require_job(session, job_id)
            return outbox.send_again(session, job_id, delivery_id).as_delivery()

    def queue_positions(self, jobs: Sequence[JobSummary]) -> dict[str, int]:
        """The place of each waiting job in its queue, 1 for the next job."""
        waiting = [job.id for job in jobs if job.status.queue is not None]
        if not waiting:
            return {}
        with self._database.transaction() as session:
            return waiting_jobs.positions(session, waiting)

    def statistics(self) -> JobStatistics:
        """Count the jobs and measure how long they wait, for operators."""
        with self._database.transaction() as session:
            return statistics.read(session)

    def check(self) -> dict[str, float | None]:
        """Measure the parts: {"database", "migrations", "broker"} -> seconds, None where one fails.

        "migrations" fails if the tables have another version than this program needs. Never raises.
        """
        return {**self._check_database(), "broker": self._resources.doorbell.check()}

    def _check_database(self) -> dict[str, float | None]:
        began = time.perf_counter()
        try:
            with self._database.transaction() as session:
                repository.now(session)
                answered_at = time.perf_counter()
                at_head = repository.schema_version(session) == SCHEMA_VERSION
        except ServiceUnavailable:
            return {"database": None, "migrations": None}
        return {
            "database": answered_at - began,
            "migrations": time.perf_counter() - answered_at if at_head else None,
        }


def _require_same(earlier: JobTable | None, new: NewJob) -> Job:
    if earlier is None:
        raise ServiceUnavailable("database", "the job of this Idempotency-Key is just being deleted")
    if earlier.request_hash != new.request_hash:
        raise IdempotencyConflict(
            f"The Idempotency-Key {new.idempotency_key!r} was used for another request, job {earlier.id}.",
            "Use a new key for a new request.",
        )
    return earlier.as_job()
