"""A client's requests about a job: cancel, pause, resume. A repeated request changes nothing."""

from datetime import datetime

from jobs.errors import JobNotPausable, JobNotPaused
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.transitions import claims, endings, steps
from jobs.states import JobStatus


def request_cancel(session: Session, job: JobTable, now: datetime) -> None:
    """End a job that no worker holds, or leave a request that its worker reads at its next heartbeat.

    Upkeep ends the job if that worker is gone. A job that has ended stays as it is.
    """
    if JobStatus(job.status).is_terminal:
        return
    if not job.is_held or job.is_lost_at(now):
        endings.cancel(session, job, now)
    elif not job.cancel_requested:
        job.cancel_requested = True
        steps.log_status(session, job, cancel_requested=True)


def request_pause(session: Session, job: JobTable) -> None:
    """Pause a queued job, or leave a request that the worker of a running one reads at its next heartbeat.

    Raises:
        JobNotPausable: it is being validated or cancelled, or it has ended.
    """
    if job.status == JobStatus.QUEUED:
        claims.pause(session, job)
    elif job.status == JobStatus.RUNNING and not job.cancel_requested:
        if not job.pause_requested:
            job.pause_requested = True
            steps.log_status(session, job, pause_requested=True)
    elif job.status != JobStatus.PAUSED:
        state = "being cancelled" if job.cancel_requested else job.status
        hint = "Only a job that is queued or running can be paused."
        raise JobNotPausable(f"Job {job.id} is {state}.", hint)


def resume(session: Session, job: JobTable, now: datetime) -> None:
    """Let a paused job wait for a worker again; a pause in progress is cancelled.

    Raises:
        JobNotPaused: it is being validated, or it has ended.
    """
    if job.status == JobStatus.PAUSED:
        job.rung_at = now
        steps.move(session, job, JobStatus.QUEUED)
    elif job.pause_requested:
        take_back_pause(session, job)
    elif job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        raise JobNotPaused(f"Job {job.id} is {job.status}.", "Only a paused job can be resumed.")


def take_back_pause(session: Session, job: JobTable) -> None:
    """Cancel the pause of a running job; it continues if its worker has not stopped it yet."""
    job.pause_requested = False
    steps.log_status(session, job, pause_requested=False)
