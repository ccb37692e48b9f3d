"""The resources that the services share: database connections, the doorbell, and the settings."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from jobs.doorbell import Doorbell
from jobs.errors import ServiceUnavailable
from jobs.rows import waiting_jobs
from jobs.rows.database import Database
from jobs.settings import Settings
from jobs.values.jobs import Job


@dataclass(frozen=True)
class Resources:
    """Opened once in a process, after a fork, and passed to each service. Safe to share between threads.

    Args:
        database: the place of the rows.
        doorbell: rung after a commit, so that a worker looks at once.
        settings: lease, attempt and retention limits.
    """

    database: Database
    doorbell: Doorbell
    settings: Settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Build the parts from their settings; connects to nothing yet."""
        return cls(Database(settings.database_url), Doorbell(settings.redis_url), settings)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
        self.doorbell.close()

    def ring_for(self, job: Job) -> None:
        """Ring for a job that waits, after its row is committed.

        A failed ring is no error: the row records it, and upkeep rings within seconds.
        """
        queue = job.status.queue
        if queue is None or self.doorbell.ring(queue, job.id):
            return
        with suppress(ServiceUnavailable), self.database.transaction() as session:
            waiting_jobs.mark_not_rung(session, [job.id])
