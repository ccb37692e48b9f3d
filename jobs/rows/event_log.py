"""Queries on a job's log and on its series of metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.rows.tables import EventTable, JobTable, MetricTable
from jobs.values.log import EventType, JobEvent, MetricPoint
from nayer_core.contract.events import MetricsEvent


def append(
    session: Session,
    job: JobTable,
    event_type: EventType,
    data: Mapping[str, Any],
    line: int | None = None,
) -> None:
    """Write the entry `last_seq` of a locked job, which the caller has raised for it.

    Args:
        line: the number of the line that a child printed; None for the service's own reports.
    """
    fence = None if line is None else job.fence
    event = EventTable(
        job_id=job.id, seq=job.last_seq, type=event_type, data=dict(data), fence=fence, line=line
    )
    session.add(event)


def lines_written(session: Session, job: JobTable, lines: Sequence[int]) -> set[int]:
    """Find which of these lines of the job's present claim are in the log already."""
    if not lines:
        return set()
    in_log = select(EventTable.line).where(
        EventTable.job_id == job.id, EventTable.fence == job.fence, EventTable.line.in_(lines)
    )
    return {line for line in session.scalars(in_log) if line is not None}


def read_events(session: Session, after: Mapping[str, int], limit: int) -> list[JobEvent]:
    """Read the entries after a position in each of many logs, in the order of job and seq."""
    position = (
        func.unnest(
            bindparam("ids", list(after), ARRAY(Text)),
            bindparam("seqs", list(after.values()), ARRAY(BigInteger)),
        )
        .table_valued("job_id", "seq", name="position")
        .render_derived()
    )
    newer = (
        select(EventTable)
        .join(position, (EventTable.job_id == position.c.job_id) & (EventTable.seq > position.c.seq))
        .order_by(EventTable.job_id, EventTable.seq)
        .limit(limit)
    )
    return [event.as_event() for event in session.scalars(newer)]


def write_metrics(session: Session, job: JobTable, events: Sequence[MetricsEvent]) -> None:
    """Write points; of two for one step the later one counts, and values that are no number are left out."""
    rows = {
        (name, event.step): {
            "job_id": job.id,
            "name": name,
            "step": event.step,
            "epoch": event.epoch,
            "value": value,
            "fence": job.fence,
        }
        for event in events
        for name, value in event.values.items()
        if math.isfinite(value)
    }
    if not rows:
        return
    new = insert(MetricTable).values(list(rows.values()))
    columns = {column: new.excluded[column] for column in ("epoch", "value", "fence")}
    session.execute(new.on_conflict_do_update(index_elements=["job_id", "name", "step"], set_=columns))


def read_metrics(
    session: Session, job_id: str, names: Sequence[str] | None, max_points: int
) -> dict[str, list[MetricPoint]]:
    """Read series, each thinned evenly to at most `max_points` with its first and last point kept."""
    place = func.row_number().over(partition_by=MetricTable.name, order_by=MetricTable.step)
    points = select(
        MetricTable,
        (place - 1).label("place"),
        func.count().over(partition_by=MetricTable.name).label("length"),
    ).where(MetricTable.job_id == job_id)
    if names is not None:
        points = points.where(MetricTable.name.in_([name for name in names if "\0" not in name]))
    point = points.subquery()
    intervals = max_points - 1
    # A point is kept when its share of the intervals differs from that of the point before it.
    share = point.c.place * intervals / func.greatest(point.c.length - 1, 1)
    share_before = (point.c.place - 1) * intervals / func.greatest(point.c.length - 1, 1)
    sample = select(point).where(
        (point.c.length <= max_points)
        | ((point.c.place == 0) & (intervals > 0))
        | (point.c.place == point.c.length - 1)
        | ((point.c.place > 0) & (func.floor(share) > func.floor(share_before)))
    )
    series: dict[str, list[MetricPoint]] = {}
    for row in session.execute(sample.order_by(point.c.name, point.c.step)):
        series.setdefault(row.name, []).append(
            MetricPoint(row.name, row.step, row.epoch, row.value, row.created_at)
        )
    return series
