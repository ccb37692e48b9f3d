"""What happens to a job's row when it takes a step. Every function works on a row that is locked."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jobs.rows import event_log, outbox
from jobs.rows.database import Session
from jobs.rows.tables import FileTable, JobTable
from jobs.states import JobStatus
from jobs.values import Artifact, StoredFile
from nayer_core.contract.errors import ErrorCode

_LOST_HINTS = {
    ErrorCode.WORKER_LOST: "Ask for less memory (smaller batches, a smaller student), or try again later.",
    ErrorCode.DISK_FAILED: "Try again when the operator has made room for the workers.",
}


def problem(code: ErrorCode | str, message: str, hint: str, *, retryable: bool) -> dict[str, Any]:
    """Make the `error` of a failed job."""
    return {"code": str(code), "message": message, "hint": hint, "retryable": retryable}


def move(session: Session, job: JobTable, status: JobStatus, **more: object) -> None:
    """Take a step, and tell it in the log and to the job's web hook.

    The database refuses a step that is not in TRANSITIONS.
    """
    job.status = status
    event_log.append(session, job, "status", {"status": status, "attempt": job.attempt, **more})
    outbox.announce(session, job)


def begin_phase(session: Session, job: JobTable, phase: str, now: datetime, line: int) -> None:
    """Begin a part of the work, which ends the one before."""
    close_phase(job, now)
    job.phase = phase
    job.timeline = [*job.timeline, {"phase": phase, "started_at": now.isoformat(), "ended_at": None}]
    event_log.append(session, job, "phase", {"phase": phase}, line)


def close_phase(job: JobTable, now: datetime) -> None:
    """End the open part of the work, if one is open."""
    job.timeline = [{**part, "ended_at": part["ended_at"] or now.isoformat()} for part in job.timeline]


def put_file(
    job: JobTable, kind: str, name: str, stored: StoredFile, now: datetime, media_type: str | None = None
) -> None:
    """Name a stored file, in place of an older one of that name."""
    job.files = [file for file in job.files if (file.kind, file.name) != (kind, name)]
    job.files.append(
        FileTable(
            job_id=job.id,
            kind=kind,
            name=name,
            key=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
            filename=stored.filename,
            media_type=media_type,
            kept=True,
            created_at=now,
        )
    )


def add_artifacts(session: Session, job: JobTable, artifacts: Iterable[Artifact], now: datetime) -> None:
    """Publish stored files for download."""
    for artifact in artifacts:
        stored = StoredFile(artifact.key, artifact.sha256, artifact.bytes)
        put_file(job, "artifact", artifact.name, stored, now, artifact.media_type)
        told = {"name": artifact.name, "bytes": artifact.bytes, "sha256": artifact.sha256}
        event_log.append(session, job, "artifact", {**told, "media_type": artifact.media_type})


def let_uploads_go(job: JobTable) -> None:
    """Stop keeping what the client sent, once its canonical form is stored; names and hashes stay."""
    for file in job.files:
        if file.kind == "upload":
            file.kept = False


def drop_lease(job: JobTable, now: datetime) -> None:
    """End the claim and count its time; a lease that ran out long ago counts to its end only."""
    if job.claimed_at is not None and job.lease_until is not None:
        job.ran_seconds += max(0.0, (min(now, job.lease_until) - job.claimed_at).total_seconds())
    job.lease_until = job.claimed_at = job.worker = None


def finish(
    session: Session,
    job: JobTable,
    status: JobStatus,
    now: datetime,
    error: Mapping[str, Any] | None = None,
    **more: object,
) -> None:
    """End the job; upkeep lets go of its files in their time (jobs/rows/retention.py)."""
    close_phase(job, now)
    drop_lease(job, now)
    job.pause_requested = False
    job.finished_at = now
    if error is not None:
        job.error = dict(error)
        event_log.append(session, job, "error", error)
    move(session, job, status, **more)


def hand_back(
    session: Session,
    job: JobTable,
    now: datetime,
    reason: str,
    *,
    counts_attempt: bool,
    max_attempts: int,
    code: ErrorCode = ErrorCode.WORKER_LOST,
) -> None:
    """Let another worker have the job, or end it where that is no use, or let it rest where that is wanted.

    Args:
        reason: how it came to this, as in "the process was killed by signal 9".
        code: of the failure, where no attempt is left.
    """
    if job.cancel_requested:
        finish(session, job, JobStatus.CANCELLED, now, reason=reason)
    elif counts_attempt and job.attempt >= max_attempts:
        lost = f"{max_attempts} attempts at this job were lost; at the last one {reason}."
        error = problem(code, lost, _LOST_HINTS[code], retryable=True)
        finish(session, job, JobStatus.FAILED, now, error)
    else:
        close_phase(job, now)
        drop_lease(job, now)
        job.attempt += counts_attempt
        if job.pause_requested:
            rest(session, job, reason=reason)
            return
        job.rung_at = now
        waiting = JobStatus.QUEUED if job.status == JobStatus.RUNNING else JobStatus(job.status)
        move(session, job, waiting, reason=reason)


def rest(session: Session, job: JobTable, **more: object) -> None:
    """Pause a job that no worker holds; its inputs and checkpoints are kept."""
    job.pause_requested = False
    move(session, job, JobStatus.PAUSED, **more)
