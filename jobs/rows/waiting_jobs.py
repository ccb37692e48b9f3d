"""Queries on jobs that wait for a worker, as `JobTable.is_waiting` says."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from jobs.rows.repository import select_jobs
from jobs.rows.tables import JobTable
from jobs.states import QueueName

# The highest priority first, then the oldest.
ORDER = (JobTable.priority.desc(), JobTable.number)


def take_next(session: Session, queue: QueueName) -> JobTable | None:
    """Lock the next job of a queue; a job that another worker has locked is skipped."""
    next_job = select_jobs().where(JobTable.is_waiting_in(queue)).order_by(*ORDER).limit(1)
    return session.scalar(next_job.with_for_update(of=JobTable, skip_locked=True))


def count(session: Session, queue: QueueName) -> int:
    """Count the jobs that wait in a queue."""
    jobs = select(func.count()).select_from(JobTable).where(JobTable.is_waiting_in(queue))
    return session.scalar(jobs) or 0


def positions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """The place of each of these jobs in its queue, 1 for the next one; none for a job that does not wait."""
    place = func.row_number().over(partition_by=JobTable.status, order_by=ORDER)
    line = select(JobTable.id, place.label("position")).where(JobTable.is_waiting).subquery()
    rows = session.execute(select(line.c.id, line.c.position).where(line.c.id.in_(job_ids)))
    return {row.id: row.position for row in rows}


def mark_rung(session: Session, queue: QueueName, silent_for: timedelta, limit: int) -> Sequence[str]:
    """Lock jobs without a ring in this time, the next ones first, and record a ring now."""
    is_silent = or_(JobTable.rung_at.is_(None), JobTable.rung_at < func.now() - silent_for)
    silent = select(JobTable.id).where(JobTable.is_waiting_in(queue), is_silent).order_by(*ORDER).limit(limit)
    ids = session.scalars(silent.with_for_update(skip_locked=True)).all()
    session.execute(update(JobTable).where(JobTable.id.in_(ids)).values(rung_at=func.now()))
    return ids


def mark_not_rung(session: Session, job_ids: Sequence[str]) -> None:
    """Record that jobs had no ring, so that upkeep rings soon."""
    session.execute(update(JobTable).where(JobTable.id.in_(job_ids)).values(rung_at=None))
