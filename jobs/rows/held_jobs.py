"""Queries on jobs that a worker holds, as `JobTable.is_held` says."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, func, not_, or_, update
from sqlalchemy.orm import Session

from jobs.errors import LeaseLost
from jobs.rows.repository import select_jobs
from jobs.rows.tables import JobTable
from jobs.states import HELD_IN, JobStatus, QueueName
from jobs.values.claims import Claim, Control


def find_by_worker(session: Session, queue: QueueName, worker: str) -> JobTable | None:
    """Find the job that this worker holds already, because the answer to its claim was lost."""
    is_its_own = and_(JobTable.is_held, JobTable.worker == worker, JobTable.status == HELD_IN[queue])
    return session.scalar(select_jobs().where(is_its_own))


def lock_claimed(session: Session, claim: Claim) -> JobTable:
    """Lock the row of a claim that is still held.

    Raises:
        LeaseLost: the claim is not held: the fence rose, or the job was handed back or has ended.
    """
    job = session.scalar(select_jobs().where(_is_held_under(claim)).with_for_update(of=JobTable))
    if job is None:
        raise LeaseLost(
            f"Claim {claim.fence} of job {claim.job.id} is no longer held.", "Write nothing more."
        )
    return job


def find_settled(session: Session, claim: Claim, outcomes: Iterable[JobStatus]) -> JobTable | None:
    """Find the row of a claim that was itself settled before with one of these outcomes.

    This is so when the connection is cut while the commit is on its way, and the call is repeated.
    """
    is_of_claim = and_(JobTable.id == claim.job.id, JobTable.fence == claim.fence)
    is_settled = and_(not_(JobTable.is_held), JobTable.status.in_(list(outcomes)))
    return session.scalar(select_jobs().where(is_of_claim, is_settled))


def renew_lease(session: Session, claim: Claim, lease: timedelta) -> Control:
    """Prolong the lease of a claim that is still held, and read the client's requests."""
    renewal = session.execute(
        update(JobTable)
        .where(_is_held_under(claim))
        .values(lease_until=func.now() + lease)
        .returning(
            JobTable.cancel_requested,
            JobTable.pause_requested,
            (JobTable.max_runtime_seconds - _used_seconds()).label("remaining"),
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if renewal is None:
        return Control(lost=True, cancel_requested=False, pause_requested=False, remaining_seconds=None)
    remaining = None if renewal.remaining is None else float(renewal.remaining)
    return Control(False, renewal.cancel_requested, renewal.pause_requested, remaining)


def lock_lost(session: Session, limit: int) -> Sequence[JobTable]:
    """Lock jobs whose lease ran out; those that another reaper works on are passed over."""
    return session.scalars(
        select_jobs()
        .where(JobTable.is_lost())
        .order_by(JobTable.lease_until)
        .limit(limit)
        .with_for_update(of=JobTable, skip_locked=True)
    ).all()


def lock_overdue(session: Session, grace_seconds: float, limit: int) -> Sequence[JobTable]:
    """Lock jobs that used up their time, waiting ones too.

    One that a worker holds has `grace_seconds` more, so that its worker can end it.
    """
    grace = case((JobTable.is_held, grace_seconds), else_=0.0)
    return session.scalars(
        select_jobs()
        .where(
            or_(JobTable.is_waiting, JobTable.is_held),
            _used_seconds() >= JobTable.max_runtime_seconds + grace,
        )
        .limit(limit)
        .with_for_update(of=JobTable, skip_locked=True)
    ).all()


def _is_held_under(claim: Claim) -> ColumnElement[bool]:
    return and_(JobTable.id == claim.job.id, JobTable.fence == claim.fence, JobTable.is_held)


def _used_seconds() -> ColumnElement[float]:
    """The time under all claims, the present one included."""
    under_this_claim = func.extract("epoch", func.now() - JobTable.claimed_at)
    return JobTable.ran_seconds + func.coalesce(under_this_claim, 0)
