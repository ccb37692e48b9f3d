"""The queries behind the numbers that operators watch."""

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from jobs.rows.tables import DeliveryTable, JobTable
from jobs.states import WAITING_IN, JobStatus
from jobs.values import JobStatistics
from jobs.webhooks.deliveries import DeliveryStatus


def read(session: Session) -> JobStatistics:
    """Count the jobs by status, and find the oldest waiting one of each queue; takes no lock."""
    waits = JobTable.lease_until.is_(None) & JobTable.cancel_requested.is_(False)
    age = func.extract("epoch", func.now() - func.min(case((waits, JobTable.created_at))))
    expired = func.count().filter(JobTable.lease_until < func.now())
    rows = session.execute(
        select(JobTable.status, func.count(), age, expired).group_by(JobTable.status)
    ).all()
    sent = session.execute(select(DeliveryTable.status, func.count()).group_by(DeliveryTable.status)).all()
    ages = {status: float(seconds or 0) for status, _, seconds, _ in rows}
    return JobStatistics(
        counts=dict.fromkeys(JobStatus, 0) | {JobStatus(status): count for status, count, _, _ in rows},
        oldest_waiting_seconds={queue: ages.get(status, 0.0) for queue, status in WAITING_IN.items()},
        deliveries=dict.fromkeys(DeliveryStatus, 0) | {DeliveryStatus(s): count for s, count in sent},
        expired_leases=sum(lost for _, _, _, lost in rows),
    )
