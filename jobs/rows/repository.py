"""Queries on jobs and their files in any state. All times are the database's."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    Select,
    Text,
    column,
    delete,
    func,
    select,
    table,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer, selectinload

from jobs.errors import JobNotFound
from jobs.rows.caches import BankTable, EmbeddingTable
from jobs.rows.checkpoints import CheckpointFileTable
from jobs.rows.tables import FileTable, JobTable
from jobs.states import JobStatus
from jobs.values.jobs import Job

T = TypeVar("T")

_JOB_ID = re.compile(r"[0-9a-f]{32}")


def now(session: Session) -> datetime:
    """Read the time at which this transaction began."""
    return session.execute(select(func.now())).scalar_one()


def save(session: Session, job: JobTable) -> Job:
    """Send the changes of a row to the database, and copy it."""
    session.flush()
    return job.as_job()


def select_jobs() -> Select[JobTable]:
    """Begin a query that reads jobs with their files."""
    return select(JobTable).options(selectinload(JobTable.files))


def insert_job(session: Session, values: dict[str, Any]) -> JobTable | None:
    """Insert a job; None if a committed row has its idempotency key already."""
    job_id = session.scalar(
        insert(JobTable)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["idempotency_key"])
        .returning(JobTable.id)
    )
    return None if job_id is None else read_job(session, job_id)


def find_by_key(session: Session, idempotency_key: str) -> JobTable | None:
    """Find the job that a request with this key created."""
    return session.scalar(select_jobs().where(JobTable.idempotency_key == idempotency_key))


def read_job(session: Session, job_id: str) -> JobTable:
    """Read a job with its files.

    Raises:
        JobNotFound: there is none.
    """
    return _require(session.scalar(select_jobs().where(JobTable.id == _require_id(job_id))), job_id)


def require_job(session: Session, job_id: str) -> None:
    """Make sure that there is a job, without reading it.

    Raises:
        JobNotFound: there is none.
    """
    _require(session.scalar(select(JobTable.id).where(JobTable.id == _require_id(job_id))), job_id)


def lock_job(session: Session, job_id: str) -> JobTable:
    """Read a job and keep others from changing it until the end of the transaction.

    Raises:
        JobNotFound: there is none.
    """
    query = select_jobs().where(JobTable.id == _require_id(job_id)).with_for_update(of=JobTable)
    return _require(session.scalar(query), job_id)


def list_jobs(
    session: Session, status: JobStatus | None, limit: int, after: str | None
) -> Sequence[JobTable]:
    """Read at most `limit` jobs, newest first, that are older than the job `after`, without large columns.

    Raises:
        JobNotFound: `after` names no job.
    """
    large = (JobTable.spec, JobTable.resolved, JobTable.report, JobTable.timeline)
    small = select_jobs().options(*(defer(column, raiseload=True) for column in large))
    page = small.order_by(JobTable.number.desc()).limit(limit)
    if status is not None:
        page = page.where(JobTable.status == status)
    if after is not None:
        number = session.scalar(select(JobTable.number).where(JobTable.id == _require_id(after)))
        page = page.where(JobTable.number < _require(number, after))
    return session.scalars(page).all()


def delete_job(session: Session, job_id: str) -> None:
    """Remove a job with its log, series, files, checkpoints and messages."""
    session.execute(delete(JobTable).where(JobTable.id == job_id))


def kept_keys(session: Session, among: Sequence[str] | None = None) -> set[str]:
    """Read the keys of the store that some row still names: all of them, or those in `among`."""
    queries = [
        select(FileTable.key).where(FileTable.kept),
        select(EmbeddingTable.key),
        select(BankTable.key),
        select(CheckpointFileTable.key),
    ]
    if among is not None:
        queries = [query.where(query.selected_columns[0].in_(among)) for query in queries]
    return set(session.scalars(union_all(*queries)))


def schema_version(session: Session) -> str | None:
    """Read the version of the database's tables."""
    return session.scalar(select(column("version_num", Text)).select_from(table("alembic_version")))


def _require_id(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound(f"There is no job {job_id[:64]!r}.", "A job's id is 32 hexadecimal digits.")
    return job_id


def _require(value: T | None, job_id: str) -> T:
    if value is None:
        raise JobNotFound(f"There is no job {job_id!r}.", "It may have been deleted.")
    return value
