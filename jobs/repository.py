"""Queries on jobs and their files. All time is the database's."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    column,
    delete,
    func,
    or_,
    select,
    table,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer, selectinload

from jobs.caches import BankTable, EmbeddingTable
from jobs.errors import JobNotFound, LeaseLost
from jobs.records import Claim, Control, Job
from jobs.states import ACTIVE, HELD_IN, WAITING_IN, JobStatus, QueueName
from jobs.tables import CheckpointFileTable, FileTable, JobTable

T = TypeVar("T")

_JOB_ID = re.compile(r"[0-9a-f]{32}")


def now(session: Session) -> datetime:
    """Read the time at which this transaction began."""
    return session.execute(select(func.now())).scalar_one()


def written(session: Session, job: JobTable) -> Job:
    """Send the changes of a row to the database and copy it as it then stands."""
    session.flush()
    return job.as_job()


def insert_job(session: Session, values: dict[str, Any]) -> JobTable | None:
    """Insert a job; None when its idempotency key is taken, by a row that is committed by then."""
    inserted = session.scalar(
        insert(JobTable)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["idempotency_key"])
        .returning(JobTable.id)
    )
    return None if inserted is None else read_job(session, inserted)


def find_by_key(session: Session, idempotency_key: str) -> JobTable | None:
    """Find the job that a request with this key made."""
    return session.scalar(_jobs().where(JobTable.idempotency_key == idempotency_key))


def read_job(session: Session, job_id: str) -> JobTable:
    """Read a job with its files.

    Raises:
        JobNotFound: there is none.
    """
    return _found(session.scalar(_jobs().where(JobTable.id == _require_id(job_id))), job_id)


def require_job(session: Session, job_id: str) -> None:
    """Make sure that there is a job, without reading it.

    Raises:
        JobNotFound: there is none.
    """
    _found(session.scalar(select(JobTable.id).where(JobTable.id == _require_id(job_id))), job_id)


def lock_job(session: Session, job_id: str) -> JobTable:
    """Read a job and keep others from changing it until the end of the transaction.

    Raises:
        JobNotFound: there is none.
    """
    locked = _jobs().where(JobTable.id == _require_id(job_id)).with_for_update(of=JobTable)
    return _found(session.scalar(locked), job_id)


def list_jobs(
    session: Session, status: JobStatus | None, limit: int, after: str | None
) -> Sequence[JobTable]:
    """Read at most `limit` jobs, newest first, from behind the job `after`, without their large columns.

    Raises:
        JobNotFound: `after` names no job.
    """
    large = (JobTable.spec, JobTable.resolved, JobTable.report, JobTable.timeline)
    listed = _jobs().options(*(defer(column, raiseload=True) for column in large))
    listed = listed.order_by(JobTable.number.desc()).limit(limit)
    if status is not None:
        listed = listed.where(JobTable.status == status)
    if after is not None:
        number = session.scalar(select(JobTable.number).where(JobTable.id == _require_id(after)))
        listed = listed.where(JobTable.number < _found(number, after))
    return session.scalars(listed).all()


def delete_job(session: Session, job_id: str) -> None:
    """Remove a job with all that hangs from it."""
    session.execute(delete(JobTable).where(JobTable.id == job_id))


def take_waiting(session: Session, queue: QueueName) -> JobTable | None:
    """Lock the job that is next in a queue; one that another worker is just taking is passed over."""
    return session.scalar(
        _jobs()
        .where(*_waiting(queue))
        .order_by(JobTable.dry_run.desc(), JobTable.number)
        .limit(1)
        .with_for_update(of=JobTable, skip_locked=True)
    )


def find_taken(session: Session, queue: QueueName, worker: str) -> JobTable | None:
    """Find the job that a worker holds by name, as it does when the answer to its claim was lost."""
    held = (JobTable.worker == worker, JobTable.status == HELD_IN[queue], JobTable.lease_until.is_not(None))
    return session.scalar(_jobs().where(*held))


def lock_claimed(session: Session, claim: Claim) -> JobTable:
    """Lock the row of a claim that is still held.

    Raises:
        LeaseLost: it is not: the fence rose, or the job was handed back or came to its end.
    """
    job = session.scalar(_jobs().where(*_held(claim)).with_for_update(of=JobTable))
    if job is None:
        raise LeaseLost(
            f"Claim {claim.fence} of job {claim.job.id} is no longer held.", "Write nothing more."
        )
    return job


def find_settled(session: Session, claim: Claim, outcomes: Iterable[JobStatus]) -> JobTable | None:
    """Find the row of a claim that was itself settled before with one of these outcomes.

    So it is when the connection was cut while the commit was on its way and the call is repeated.
    """
    return session.scalar(
        _jobs().where(
            JobTable.id == claim.job.id,
            JobTable.fence == claim.fence,
            JobTable.lease_until.is_(None),
            JobTable.status.in_(list(outcomes)),
        )
    )


def renew_lease(session: Session, claim: Claim, lease: timedelta) -> Control:
    """Prolong the lease of a claim that is still held."""
    used = JobTable.ran_seconds + func.extract("epoch", func.now() - JobTable.claimed_at)
    renewed = session.execute(
        update(JobTable)
        .where(*_held(claim))
        .values(lease_until=func.now() + lease)
        .returning(
            JobTable.cancel_requested,
            JobTable.pause_requested,
            (JobTable.max_runtime_seconds - used).label("remaining"),
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if renewed is None:
        return Control(lost=True, cancel_requested=False, pause_requested=False, remaining_seconds=None)
    remaining = None if renewed.remaining is None else float(renewed.remaining)
    return Control(False, renewed.cancel_requested, renewed.pause_requested, remaining)


def lock_expired(session: Session, limit: int) -> Sequence[JobTable]:
    """Lock jobs whose lease ran out; those that another reaper works on are passed over."""
    return session.scalars(
        _jobs()
        .where(JobTable.lease_until < func.now(), JobTable.status.in_(ACTIVE))
        .order_by(JobTable.lease_until)
        .limit(limit)
        .with_for_update(of=JobTable, skip_locked=True)
    ).all()


def lock_overdue(session: Session, grace_seconds: float, limit: int) -> Sequence[JobTable]:
    """Lock jobs that used up their time; one that a worker holds has `grace_seconds` to end by itself."""
    used = JobTable.ran_seconds + func.coalesce(func.extract("epoch", func.now() - JobTable.claimed_at), 0)
    grace = case((JobTable.lease_until.is_not(None), grace_seconds), else_=0.0)
    return session.scalars(
        _jobs()
        .where(
            JobTable.status.in_([JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.RUNNING]),
            used >= JobTable.max_runtime_seconds + grace,
        )
        .limit(limit)
        .with_for_update(of=JobTable, skip_locked=True)
    ).all()


def waiting_count(session: Session, queue: QueueName) -> int:
    """Count the jobs that wait for a worker of this queue."""
    return session.scalar(select(func.count()).select_from(JobTable).where(*_waiting(queue))) or 0


def mark_rung(session: Session, queue: QueueName, silent_for: timedelta, limit: int) -> Sequence[str]:
    """Find waiting jobs that were not rung for, first in the queue first, and say that they are now."""
    silent = (
        select(JobTable.id)
        .where(*_waiting(queue), or_(JobTable.rung_at.is_(None), JobTable.rung_at < func.now() - silent_for))
        .order_by(JobTable.dry_run.desc(), JobTable.number)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = session.scalars(silent).all()
    session.execute(update(JobTable).where(JobTable.id.in_(ids)).values(rung_at=func.now()))
    return ids


def mark_not_rung(session: Session, job_ids: Sequence[str]) -> None:
    """Say that the doorbell did not ring for these jobs, so that upkeep tries soon."""
    session.execute(update(JobTable).where(JobTable.id.in_(job_ids)).values(rung_at=None))


def queue_positions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Tell of jobs that wait how many are taken before them in their queue, themselves included."""
    order = func.row_number().over(
        partition_by=JobTable.status, order_by=(JobTable.dry_run.desc(), JobTable.number)
    )
    waiting = or_(*(and_(*_waiting(queue)) for queue in WAITING_IN))
    line = select(JobTable.id, order.label("position")).where(waiting).subquery()
    found = session.execute(select(line.c.id, line.c.position).where(line.c.id.in_(job_ids)))
    return {row.id: row.position for row in found}


def kept_keys(session: Session, among: Sequence[str] | None = None) -> set[str]:
    """Read which keys of the store some row still names; of all keys, or of those given."""
    named = [
        select(FileTable.key).where(FileTable.kept),
        select(EmbeddingTable.key),
        select(BankTable.key),
        select(CheckpointFileTable.key),
    ]
    if among is not None:
        named = [keys.where(keys.selected_columns[0].in_(among)) for keys in named]
    return set(session.scalars(union_all(*named)))


def schema_version(session: Session) -> str | None:
    """Read which version of the migrations the database is at."""
    return session.scalar(select(column("version_num", Text)).select_from(table("alembic_version")))


def _jobs() -> Select[JobTable]:
    return select(JobTable).options(selectinload(JobTable.files))


def _waiting(queue: QueueName) -> tuple[ColumnElement[bool], ...]:
    return (
        JobTable.status == WAITING_IN[queue],
        JobTable.lease_until.is_(None),
        JobTable.cancel_requested.is_(False),
    )


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        JobTable.id == claim.job.id,
        JobTable.fence == claim.fence,
        JobTable.status == HELD_IN[claim.queue],
        JobTable.lease_until.is_not(None),
    )


def _require_id(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound(f"There is no job {job_id[:64]!r}.", "A job's id is 32 hexadecimal digits.")
    return job_id


def _found(value: T | None, job_id: str) -> T:
    if value is None:
        raise JobNotFound(f"There is no job {job_id!r}.", "It may have been deleted.")
    return value
