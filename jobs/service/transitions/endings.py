"""A job succeeds, fails or is cancelled; a claim ends, in these and in all other cases."""

from collections.abc import Sequence
from datetime import datetime

from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.transitions import files, progress, steps
from jobs.states import JobStatus
from jobs.values.files import Artifact
from jobs.values.jobs import Failure
from nayer_core.contract.errors import ErrorCode


def failure(code: ErrorCode | str, message: str, hint: str, *, retryable: bool = False) -> Failure:
    """Make the `error` of a failed job."""
    return {"code": str(code), "message": message, "hint": hint, "retryable": retryable}


def end_claim(job: JobTable, now: datetime) -> None:
    """End the open phase and the lease, and count the claim's time.

    A lease that ran out counts only up to its end.
    """
    progress.close_phase(job, now)
    if job.claimed_at is not None and job.lease_until is not None:
        job.ran_seconds += max(0.0, (min(now, job.lease_until) - job.claimed_at).total_seconds())
    job.lease_until = job.claimed_at = job.worker = None


def finish(session: Session, job: JobTable, status: JobStatus, now: datetime, **details: object) -> None:
    """End the job; upkeep drops its files after their time (jobs/rows/retention.py)."""
    end_claim(job, now)
    job.pause_requested = False
    job.finished_at = now
    steps.move(session, job, status, **details)


def succeed(session: Session, job: JobTable, now: datetime) -> None:
    """End the job, whose results are written."""
    progress.complete_progress(job)
    finish(session, job, JobStatus.SUCCEEDED, now)


def fail(
    session: Session,
    job: JobTable,
    now: datetime,
    error: Failure,
    artifacts: Sequence[Artifact] = (),
) -> None:
    """End the job with an error."""
    files.add_artifacts(session, job, artifacts, now)
    job.error = error
    steps.log(session, job, "error", error)
    finish(session, job, JobStatus.FAILED, now)


def cancel(session: Session, job: JobTable, now: datetime, **details: object) -> None:
    """End the job because its client requested that."""
    finish(session, job, JobStatus.CANCELLED, now, **details)
