"""Queries for the numbers that operators watch."""

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from jobs.rows.outbox import DeliveryTable
from jobs.rows.tables import JobTable
from jobs.states import WAITING_IN, JobStatus
from jobs.values.overview import JobStatistics
from jobs.webhooks.deliveries import DeliveryStatus


def read(session: Session) -> JobStatistics:
    """Count jobs and messages by status, and find the age of the oldest waiting job of each queue."""
    age = func.extract("epoch", func.now() - func.min(case((JobTable.is_waiting, JobTable.created_at))))
    losses = func.count().filter(JobTable.is_lost())
    jobs = select(JobTable.status, func.count(), age, losses).group_by(JobTable.status)
    rows = session.execute(jobs).all()
    deliveries = select(DeliveryTable.status, func.count()).group_by(DeliveryTable.status)
    messages = session.execute(deliveries).all()
    ages = {status: float(seconds or 0) for status, _, seconds, _ in rows}
    return JobStatistics(
        counts=dict.fromkeys(JobStatus, 0) | {JobStatus(status): count for status, count, _, _ in rows},
        oldest_waiting_seconds={queue: ages.get(status, 0.0) for queue, status in WAITING_IN.items()},
        deliveries=dict.fromkeys(DeliveryStatus, 0) | {DeliveryStatus(s): count for s, count in messages},
        expired_leases=sum(count for _, _, _, count in rows),
    )
