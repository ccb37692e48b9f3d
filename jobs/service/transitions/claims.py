"""A worker takes a job, passes it on, or hands it back."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from jobs.kinds import KINDS
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.transitions import endings, files, progress, steps
from jobs.states import HELD_IN, WAITING_IN, JobStatus, QueueName
from jobs.values.claims import StageResult
from jobs.values.files import StoredFile
from jobs.values.jobs import summarise
from nayer_core.contract.errors import ErrorCode

_LOST_HINTS = {
    ErrorCode.WORKER_LOST: "Reduce the memory (smaller batches, a smaller student), or try again later.",
    ErrorCode.DISK_FAILED: "Try again when the operator has made room for the workers.",
}


def claim(
    session: Session, job: JobTable, queue: QueueName, worker: str, lease: timedelta, now: datetime
) -> None:
    """Give a waiting job to a worker, under a higher fence than any before."""
    job.fence += 1
    job.version += 1
    job.lease_until = now + lease
    job.claimed_at = now
    job.worker = worker
    job.started_at = job.started_at or now
    if HELD_IN[queue] != job.status:
        steps.move(session, job, HELD_IN[queue])


def end_stage(
    session: Session, job: JobTable, now: datetime, *, queue: QueueName, result: StageResult
) -> None:
    """Write the results of a stage: the job waits for its next stage, or it has succeeded.

    Where a stage follows, a job whose end was requested since the last heartbeat is cancelled: no worker
    would take it again.
    """
    if result.resolved is not None:
        job.resolved = dict(result.resolved)
        job.summary = summarise(job.spec, result.resolved)
    job.report = job.report if result.report is None else dict(result.report)
    files.add_artifacts(session, job, result.artifacts, now)
    progress.set_latest_metrics(job, result.metrics)
    job.quality = job.quality if result.quality is None else dict(result.quality)
    following = KINDS[job.kind].stage_after(queue)
    if following is None:
        endings.succeed(session, job, now)
    elif job.cancel_requested:
        endings.cancel(session, job, now)
    else:
        _wait_for(session, job, now, following, result.inputs)


def _wait_for(
    session: Session, job: JobTable, now: datetime, queue: QueueName, inputs: Mapping[str, StoredFile]
) -> None:
    """Let a job wait for a stage that reads canonical files; its uploads are no longer kept."""
    for name, file in inputs.items():
        files.put_file(job, "input", name, file, now)
    endings.end_claim(job, now)
    files.release_uploads(job)
    job.rung_at = now
    steps.move(session, job, WAITING_IN[queue])


def hand_back(
    session: Session,
    job: JobTable,
    now: datetime,
    *,
    reason: str,
    counts_attempt: bool,
    max_attempts: int,
    code: ErrorCode = ErrorCode.WORKER_LOST,
) -> None:
    """Give the job back to its queue; cancel or pause it instead if the client requested that.

    Args:
        reason: the cause, as in "the process was killed by signal 9".
        counts_attempt: whether this uses up an attempt; with the last one the job fails.
        code: of the failure, where no attempt is left.
    """
    if job.cancel_requested:
        endings.cancel(session, job, now, reason=reason)
    elif counts_attempt and job.attempt >= max_attempts:
        message = f"{max_attempts} attempts at this job were lost; at the last one {reason}."
        endings.fail(session, job, now, endings.failure(code, message, _LOST_HINTS[code], retryable=True))
    else:
        endings.end_claim(job, now)
        job.attempt += counts_attempt
        if job.pause_requested:
            pause(session, job, reason=reason)
        else:
            job.rung_at = now
            waiting = JobStatus.QUEUED if job.status == JobStatus.RUNNING else JobStatus(job.status)
            steps.move(session, job, waiting, reason=reason)


def pause(session: Session, job: JobTable, **details: object) -> None:
    """Pause a job that no worker holds; its inputs and checkpoints are kept."""
    job.pause_requested = False
    steps.move(session, job, JobStatus.PAUSED, **details)
