"""Ring for a job once its row is committed, and remember when that did not work."""

from contextlib import suppress

from jobs.errors import ServiceUnavailable
from jobs.queue import Doorbell
from jobs.rows import repository
from jobs.rows.database import Database
from jobs.values import Job


def ring_after_commit(database: Database, doorbell: Doorbell, job: Job) -> None:
    """Ring for a job that waits; a failed ring is no error, and upkeep makes up for it within seconds."""
    queue = job.status.queue
    if queue is None or doorbell.ring(queue, job.id):
        return
    with suppress(ServiceUnavailable), database.transaction() as session:
        repository.mark_not_rung(session, [job.id])
