"""Writes the events that a child printed."""

from collections.abc import Sequence
from datetime import datetime

from jobs.rows import event_log
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.transitions import progress, steps
from nayer_core.contract.events import (
    BankEvent,
    Event,
    MetricsEvent,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)


def write_lines(session: Session, job: JobTable, lines: Sequence[tuple[int, Event]], now: datetime) -> None:
    """Write lines of the present claim of a locked job; lines that were written before are skipped."""
    repeats = event_log.lines_written(session, job, [number for number, _ in lines])
    fresh = [(number, event) for number, event in lines if number not in repeats]
    for number, event in _newest_progress_only(fresh):
        _write(session, job, number, event, now)
    event_log.write_metrics(session, job, [event for _, event in fresh if isinstance(event, MetricsEvent)])


def _newest_progress_only(lines: Sequence[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """Keep the last progress record of each phase: the others are out of date."""
    newest: list[tuple[int, Event]] = []
    newer_is_kept = False
    for number, event in reversed(lines):
        if isinstance(event, ProgressEvent):
            if newer_is_kept:
                continue
            newer_is_kept = True
        elif isinstance(event, PhaseEvent):
            newer_is_kept = False
        newest.append((number, event))
    return newest[::-1]


def _write(session: Session, job: JobTable, number: int, event: Event, now: datetime) -> None:
    match event:
        case PhaseEvent():
            progress.begin_phase(session, job, event.phase, now, number)
        case ProgressEvent():
            progress.set_progress(session, job, event, now, number)
        case MetricsEvent():
            progress.log_metrics(session, job, event, number)
        case WarningEvent():
            steps.log(session, job, "warning", {"code": event.code, "message": event.message}, number)
        case BankEvent():
            steps.log(session, job, "bank", event.model_dump(exclude={"time", "event"}), number)
        case _:
            # A checkpoint is reported once it is safe in the store. The supervisor reports the last line
            # of a command through the job's next status.
            return
