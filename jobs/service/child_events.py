"""From what a child printed to rows."""

import math
from collections.abc import Sequence
from datetime import datetime

from jobs.rows import event_log
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service import transitions
from nayer_core.contract.events import (
    BankEvent,
    Event,
    MetricsEvent,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)


def write_lines(session: Session, job: JobTable, lines: Sequence[tuple[int, Event]], now: datetime) -> None:
    """Write lines of the job's present claim, its row being locked; lines written before are skipped."""
    written = event_log.lines_written(session, job, [number for number, _ in lines])
    fresh = [(number, event) for number, event in lines if number not in written]
    for number, event in _newest_progress_only(fresh):
        _write(session, job, number, event, now)
    event_log.write_metrics(session, job, [event for _, event in fresh if isinstance(event, MetricsEvent)])


def _newest_progress_only(lines: Sequence[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """Of the progress records of one phase keep the last: the others would tell what is past."""
    kept: list[tuple[int, Event]] = []
    newer_is_kept = False
    for number, event in reversed(lines):
        if isinstance(event, ProgressEvent):
            if newer_is_kept:
                continue
            newer_is_kept = True
        elif isinstance(event, PhaseEvent):
            newer_is_kept = False
        kept.append((number, event))
    return kept[::-1]


def _write(session: Session, job: JobTable, number: int, event: Event, now: datetime) -> None:
    match event:
        case PhaseEvent():
            transitions.begin_phase(session, job, event.phase, now, number)
        case ProgressEvent():
            told = event.model_dump(mode="json", exclude={"time", "event"})
            job.progress = {**told, "updated_at": now.isoformat()}
            event_log.append(session, job, "progress", told, number)
        case MetricsEvent():
            finite = {name: value for name, value in event.values.items() if math.isfinite(value)}
            job.latest_metrics = {**job.latest_metrics, **finite}
            told = {"epoch": event.epoch, "step": event.step, "values": event.values}
            event_log.append(session, job, "metrics", told, number)
        case WarningEvent():
            event_log.append(session, job, "warning", {"code": event.code, "message": event.message}, number)
        case BankEvent():
            event_log.append(session, job, "bank", event.model_dump(exclude={"time", "event"}), number)
        case _:
            # A checkpoint is told when it is safe in the store; the last line of a command by what the
            # supervisor does about it.
            return
