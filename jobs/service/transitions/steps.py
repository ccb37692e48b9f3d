"""The two writes that every transition is made of: an entry in the job's log, and a change of its status."""

from collections.abc import Mapping
from typing import Any

from jobs.rows import event_log, outbox
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.states import JobStatus
from jobs.values.log import EventType


def log(
    session: Session, job: JobTable, event_type: EventType, data: Mapping[str, Any], line: int | None = None
) -> None:
    """Add an entry to the job's log; `seq` has no gaps, and the job's `version` rises.

    Args:
        line: the number of the line that a child printed; None for the service's own reports.
    """
    job.last_seq += 1
    job.version += 1
    event_log.append(session, job, event_type, data, line)


def move(session: Session, job: JobTable, status: JobStatus, **details: object) -> None:
    """Change the status, and report it in the log and to the job's web hook.

    The database refuses a change that is not in TRANSITIONS.
    """
    job.status = status
    log_status(session, job, **details)
    outbox.announce(session, job)


def log_status(session: Session, job: JobTable, **details: object) -> None:
    """Report the present status in the log, with details."""
    log(session, job, "status", {"status": job.status, "attempt": job.attempt, **details})
