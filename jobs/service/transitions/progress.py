"""Phase, progress, metrics and checkpoints of a run."""

import math
from collections.abc import Mapping
from datetime import datetime

from jobs.rows import event_log
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.transitions import steps
from jobs.values.files import Bank, Checkpoint
from jobs.values.jobs import ProgressReport
from nayer_core.contract.events import MetricsEvent, ProgressEvent

RESUMED_LINE = 0  # the lines of children are counted from 1


def begin_phase(session: Session, job: JobTable, phase: str, now: datetime, line: int) -> None:
    """Begin a part of the work, which ends the one before."""
    close_phase(job, now)
    job.phase = phase
    job.timeline = [*job.timeline, {"phase": phase, "started_at": now.isoformat(), "ended_at": None}]
    steps.log(session, job, "phase", {"phase": phase}, line)


def close_phase(job: JobTable, now: datetime) -> None:
    """End the open part of the work, if one is open."""
    job.timeline = [{**span, "ended_at": span["ended_at"] or now.isoformat()} for span in job.timeline]


def set_progress(session: Session, job: JobTable, event: ProgressEvent, now: datetime, line: int) -> None:
    """Replace the progress of the present phase."""
    report = ProgressReport(
        phase=event.phase.value,
        epoch=event.epoch,
        epochs=event.epochs,
        fraction=event.fraction,
        eta_seconds=event.eta_seconds,
    )
    job.progress = {**report, "updated_at": now.isoformat()}
    steps.log(session, job, "progress", report, line)


def complete_progress(job: JobTable) -> None:
    """Show a job that has succeeded as complete, even if its child did not print that."""
    if job.progress:
        job.progress = {**job.progress, "fraction": 1.0, "eta_seconds": 0.0}


def log_metrics(session: Session, job: JobTable, event: MetricsEvent, line: int) -> None:
    """Log metrics, and set the newest value of each."""
    set_latest_metrics(job, event.values)
    entry = {"epoch": event.epoch, "step": event.step, "values": event.values}
    steps.log(session, job, "metrics", entry, line)


def set_latest_metrics(job: JobTable, values: Mapping[str, float]) -> None:
    """Set the newest value of each metric; values of a diverged run that are no numbers are left out."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    job.latest_metrics = {**job.latest_metrics, **finite}


def log_checkpoint(session: Session, job: JobTable, checkpoint: Checkpoint) -> None:
    """Report a state of the run that is safe in the store."""
    steps.log(session, job, "checkpoint", {"epoch": checkpoint.epoch, "step": checkpoint.step})


def log_resume(session: Session, job: JobTable, checkpoint: Checkpoint) -> None:
    """Report that the present claim continues from a checkpoint; once, if repeated."""
    if event_log.lines_written(session, job, [RESUMED_LINE]):
        return
    entry = {"epoch": checkpoint.epoch, "step": checkpoint.step, "resumed": True}
    steps.log(session, job, "checkpoint", entry, RESUMED_LINE)


def set_bank(job: JobTable, bank: Bank) -> None:
    """Write into `resolved` which bank the run begins with."""
    job.resolved = {**(job.resolved or {}), "bank": {"sha256": bank.file.sha256, "job": bank.job_id}}
    job.version += 1
