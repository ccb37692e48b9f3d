"""What the API does with jobs: submit, look, cancel, delete."""

from collections.abc import Mapping, Sequence

from jobs.database import Database
from jobs.queue import Doorbell
from jobs.records import Artifact, Job, JobEvent, MetricPoint, NewJob, Page
from jobs.settings import Settings
from jobs.states import JobStatus


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
        raise NotImplementedError

    def get(self, job_id: str) -> Job:
        """Read a job with its artifacts.

        Raises:
            JobNotFound: there is none; any string may be asked for.
        """
        raise NotImplementedError

    def list_jobs(self, status: JobStatus | None = None, limit: int = 20, after: str | None = None) -> Page:
        """Read jobs newest first, without their artifacts' bodies; `after` is the id a page ended with.

        Raises:
            JobNotFound: `after` names no job.
        """
        raise NotImplementedError

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; idempotent, and a finished job stays as it is.

        A job that no worker holds is `cancelled` when this returns; else its worker is told at its
        next heartbeat, and upkeep cancels it if that worker is gone.
        """
        raise NotImplementedError

    def delete(self, job_id: str) -> list[str]:
        """Remove a finished job: its row, events, metrics and artifacts.

        Returns:
            The keys in the store that no row names any more; the caller may delete these files at
            once, and the sweep of upkeep removes them in any case.

        Raises:
            JobNotTerminal: the job still runs; cancel it first.
        """
        raise NotImplementedError

    def events(self, job_id: str, after: int = 0, limit: int = 200) -> list[JobEvent]:
        """Read the log of a job from `seq` > `after` on, in order."""
        raise NotImplementedError

    def events_of_many(self, after: Mapping[str, int], limit: int = 1000) -> list[JobEvent]:
        """Read what is new in many logs with one query: {job_id: last seq seen}; ordered by job and seq.

        Unknown jobs give nothing. At most `limit` events come at once: ask again with the new positions.
        """
        raise NotImplementedError

    def metrics(
        self, job_id: str, names: Sequence[str] | None = None, max_points: int = 2000
    ) -> dict[str, list[MetricPoint]]:
        """Read series by name in order of step, each thinned to at most `max_points` with both ends kept."""
        raise NotImplementedError

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Read the artifacts of a job, by name."""
        raise NotImplementedError

    def artifact(self, job_id: str, name: str) -> Artifact:
        """Read one artifact.

        Raises:
            ArtifactNotReady: it may still come, for the job has not ended.
            ArtifactNotFound: it will not come.
        """
        raise NotImplementedError

    def queue_position(self, job_id: str) -> int | None:
        """Tell how many jobs are taken before this one is, itself included; None once it is not waiting."""
        raise NotImplementedError

    def check(self) -> dict[str, float | None]:
        """Measure the parts: {"database", "migrations", "broker"} -> seconds, None where one is not well.

        "migrations" is None when the tables are not those this program was written for. Never raises.
        """
        raise NotImplementedError
