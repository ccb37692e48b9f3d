"""What the API does with jobs: submit, look, pause, cancel, delete."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from jobs import artifacts, journal, lifecycle, repository, statistics
from jobs.database import Database
from jobs.errors import (
    IdempotencyConflict,
    JobNotPausable,
    JobNotPaused,
    JobNotTerminal,
    ServiceUnavailable,
)
from jobs.queue import Doorbell
from jobs.records import (
    Artifact,
    Job,
    JobEvent,
    JobStatistics,
    JobSummary,
    MetricPoint,
    NewJob,
    Page,
    StoredFile,
    summarise,
)
from jobs.ringing import ring_after_commit
from jobs.settings import Settings
from jobs.states import JobStatus
from jobs.tables import SCHEMA_VERSION, JobTable
from nayer_core.contract.spec import JobSpec

MAX_FILENAME = 255


class ClientSide:
    """The half of `JobService` that the API uses."""

    database: Database
    doorbell: Doorbell
    settings: Settings

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Create a job in `validating` and ring for the inspectors; its files are already stored.

        The spec is kept with its preset named and expanded.

        Returns:
            The job, and True when the very same request had made it before (`Idempotency-Key`).

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        with self.database.transaction() as session:
            row = repository.insert_job(session, _first_values(new))
            if row is None:
                assert new.idempotency_key is not None  # noqa: S101 - nothing else can be taken
                return _require_same(repository.find_by_key(session, new.idempotency_key), new), True
            now = repository.now(session)
            uploads = {"teacher": new.teacher, "evaluation": new.evaluation, "embeddings": new.embeddings}
            for name, stored in uploads.items():
                if stored is not None:
                    lifecycle.put_file(row, "upload", name, _with_clean_name(stored), now)
            journal.append(session, row, "status", {"status": row.status, "attempt": 1})
            row.rung_at = now
            job = repository.written(session, row)
        ring_after_commit(self.database, self.doorbell, job)
        return job, False

    def get(self, job_id: str) -> Job:
        """Read a job with its artifacts.

        Raises:
            JobNotFound: there is none; any string may be asked for.
        """
        with self.database.transaction() as session:
            return repository.read_job(session, job_id).as_job()

    def list_jobs(self, status: JobStatus | None = None, limit: int = 20, after: str | None = None) -> Page:
        """Read jobs newest first; `after` is the `next` of the page before.

        Raises:
            JobNotFound: `after` names no job.
        """
        with self.database.transaction() as session:
            rows = repository.list_jobs(session, status, limit + 1, after)
            jobs = [row.as_summary() for row in rows[:limit]]
        has_more = len(rows) > limit
        return Page(jobs, has_more, jobs[-1].id if has_more else None)

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; idempotent, and a finished job stays as it is.

        A job that no worker holds is `cancelled` when this returns; else its worker is told at its
        next heartbeat, and upkeep cancels it if that worker is gone.
        """
        with self.database.transaction() as session:
            row = repository.lock_job(session, job_id)
            now = repository.now(session)
            if not JobStatus(row.status).is_terminal:
                if row.lease_until is None or row.lease_until < now:
                    lifecycle.finish(session, row, JobStatus.CANCELLED, now)
                elif not row.cancel_requested:
                    row.cancel_requested = True
                    told = {"status": row.status, "attempt": row.attempt, "cancel_requested": True}
                    journal.append(session, row, "status", told)
            return repository.written(session, row)

    def pause(self, job_id: str) -> Job:
        """Ask a job to rest, with its state kept in a checkpoint; idempotent.

        A queued job is `paused` when this returns; of a running one its worker is told at its next
        heartbeat, and upkeep pauses it if that worker is gone.

        Raises:
            JobNotPausable: it is being validated or cancelled, or it has ended.
        """
        with self.database.transaction() as session:
            row = repository.lock_job(session, job_id)
            if row.status == JobStatus.QUEUED:
                lifecycle.rest(session, row)
            elif row.status == JobStatus.RUNNING and not row.cancel_requested:
                if not row.pause_requested:
                    row.pause_requested = True
                    told = {"status": row.status, "attempt": row.attempt, "pause_requested": True}
                    journal.append(session, row, "status", told)
            elif row.status != JobStatus.PAUSED:
                state = "being cancelled" if row.cancel_requested else row.status
                hint = "Only a job that is queued or running can be paused."
                raise JobNotPausable(f"Job {job_id} is {state}.", hint)
            return repository.written(session, row)

    def resume(self, job_id: str) -> Job:
        """Let a paused job wait for a worker again; idempotent. A pause still under way is taken back.

        Raises:
            JobNotPaused: it is being validated, or it has ended.
        """
        with self.database.transaction() as session:
            row = repository.lock_job(session, job_id)
            if row.status == JobStatus.PAUSED:
                row.rung_at = repository.now(session)
                lifecycle.move(session, row, JobStatus.QUEUED)
            elif row.pause_requested:
                row.pause_requested = False
                told = {"status": row.status, "attempt": row.attempt, "pause_requested": False}
                journal.append(session, row, "status", told)
            elif row.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
                raise JobNotPaused(f"Job {job_id} is {row.status}.", "Only a paused job can be resumed.")
            job = repository.written(session, row)
        ring_after_commit(self.database, self.doorbell, job)
        return job

    def delete(self, job_id: str) -> list[str]:
        """Remove a finished job: its row, events, metrics and artifacts.

        Returns:
            The keys in the store that no row names any more; the caller may delete these files at
            once, and the sweep of upkeep removes them in any case.

        Raises:
            JobNotTerminal: the job still runs.
        """
        with self.database.transaction() as session:
            row = repository.lock_job(session, job_id)
            if not JobStatus(row.status).is_terminal:
                raise JobNotTerminal(f"Job {job_id} is {row.status}.", "Cancel it first.")
            keys = sorted({file.key for file in row.files})
            repository.delete_job(session, job_id)
            still_named = repository.kept_keys(session, keys)
        return [key for key in keys if key not in still_named]

    def events(self, job_id: str, after: int = 0, limit: int = 200) -> list[JobEvent]:
        """Read the log of a job from `seq` > `after` on, in order.

        Raises:
            JobNotFound: there is no such job.
        """
        with self.database.transaction() as session:
            repository.require_job(session, job_id)
            return journal.read_events(session, {job_id: after}, limit)

    def events_of_many(self, after: Mapping[str, int], limit: int = 1000) -> list[JobEvent]:
        """Read what is new in many logs with one query: {job_id: last seq seen}; ordered by job and seq.

        Unknown jobs give nothing. At most `limit` events come at once: ask again with the new positions.
        """
        if not after:
            return []
        with self.database.transaction() as session:
            return journal.read_events(session, after, limit)

    def metrics(
        self, job_id: str, names: Sequence[str] | None = None, max_points: int = 2000
    ) -> dict[str, list[MetricPoint]]:
        """Read series by name in order of step, each thinned to at most `max_points` with both ends kept.

        Raises:
            JobNotFound: there is no such job.
        """
        with self.database.transaction() as session:
            repository.require_job(session, job_id)
            return journal.read_metrics(session, job_id, names, max_points)

    def artifact(self, job_id: str, name: str) -> Artifact:
        """Read one artifact that can be downloaded.

        Raises:
            ArtifactNotReady: it may still come, for the job has not ended.
            ArtifactExpired: it was there for its time.
            ArtifactNotFound: it will not come.
        """
        with self.database.transaction() as session:
            job = repository.read_job(session, job_id).as_job()
            return artifacts.find(job, name, repository.now(session), self.settings.keep_artifacts_seconds)

    def queue_positions(self, jobs: Sequence[JobSummary]) -> dict[str, int]:
        """Tell of those that wait how many jobs are taken before they are, themselves included."""
        waiting = [job.id for job in jobs if job.status.queue is not None]
        if not waiting:
            return {}
        with self.database.transaction() as session:
            return repository.queue_positions(session, waiting)

    def statistics(self) -> JobStatistics:
        """Count the jobs and measure how long they wait; what operators watch."""
        with self.database.transaction() as session:
            return statistics.read(session)

    def check(self) -> dict[str, float | None]:
        """Measure the parts: {"database", "migrations", "broker"} -> seconds, None where one is not well.

        "migrations" is None when the tables are not those this program was written for. Never raises.
        """
        return {**self._check_database(), "broker": self.doorbell.check()}

    def _check_database(self) -> dict[str, float | None]:
        began = time.perf_counter()
        try:
            with self.database.transaction() as session:
                repository.now(session)
                answered = time.perf_counter()
                at_head = repository.schema_version(session) == SCHEMA_VERSION
        except ServiceUnavailable:
            return {"database": None, "migrations": None}
        return {
            "database": answered - began,
            "migrations": time.perf_counter() - answered if at_head else None,
        }


def _first_values(new: NewJob) -> dict[str, Any]:
    spec = _expanded(new.spec)
    return {
        "id": uuid.uuid4().hex,
        "status": JobStatus.VALIDATING,
        "dry_run": new.dry_run,
        "spec": spec,
        "summary": summarise(spec, None),
        "progress": {},
        "timeline": [],
        "latest_metrics": {},
        "max_runtime_seconds": new.spec.max_runtime_seconds,
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "webhook_secret": _secret_of(new.spec),
    }


def _secret_of(spec: JobSpec) -> str | None:
    secret = spec.webhook.secret if spec.webhook else None
    return secret.get_secret_value() if secret else None


def _expanded(spec: JobSpec) -> dict[str, Any]:
    preset, config = spec.resolved_config()
    return {**spec.model_dump(mode="json"), "preset": preset, "config": config.model_dump(mode="json")}


def _require_same(made: JobTable | None, new: NewJob) -> Job:
    if made is None:
        raise ServiceUnavailable("database", "the job of this Idempotency-Key is just being deleted")
    if made.request_hash != new.request_hash:
        raise IdempotencyConflict(
            f"The Idempotency-Key {new.idempotency_key!r} was used for another request, job {made.id}.",
            "Use a new key for a new request.",
        )
    return made.as_job()


def _with_clean_name(stored: StoredFile) -> StoredFile:
    """Keep of a client's file name what a database and a page can show."""
    name = (stored.filename or "").encode("utf-8", "replace").decode().replace("\0", "")[:MAX_FILENAME]
    return StoredFile(stored.key, stored.sha256, stored.bytes, name or None)
