"""Queries that release data some time after the end of its job, each for a bounded batch.

Any number of upkeeps may run at once. `_lock_ended` skips jobs that another upkeep has locked. But it sees
files and checkpoints in the snapshot from the start of its query, and the other upkeep may have committed
since. So each function counts the rows that its own UPDATE or DELETE changed, under the job's lock.

Only rows are changed here; the sweep removes a file from the store once no row names it any more.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import Session

from jobs.rows.caches import BankTable, CachedFileTable, EmbeddingTable
from jobs.rows.checkpoints import CheckpointFileTable, CheckpointTable
from jobs.rows.tables import FileTable, JobTable

FileKind = Literal["upload", "input", "artifact"]


def release_files(session: Session, kind: FileKind, keep: timedelta, limit: int) -> int:
    """Set the files of one kind to not `kept`, for jobs that ended `keep` ago; returns the number of jobs.

    Names, lengths and hashes stay.
    """
    has_files = exists().where(FileTable.job_id == JobTable.id, FileTable.kind == kind, FileTable.kept)
    candidates = _lock_ended(session, keep, limit, has_files)
    files = update(FileTable).where(FileTable.job_id.in_(candidates), FileTable.kind == kind, FileTable.kept)
    job_ids = set(session.scalars(files.values(kept=False).returning(FileTable.job_id)))
    if kind == "artifact":  # clients see the change, so the ETag changes too
        session.execute(update(JobTable).where(JobTable.id.in_(job_ids)).values(version=JobTable.version + 1))
    return len(job_ids)


def delete_checkpoints(session: Session, keep: timedelta, limit: int) -> int:
    """Delete the checkpoints of jobs that ended `keep` ago; returns the number of jobs."""
    has_checkpoints = exists().where(CheckpointTable.job_id == JobTable.id)
    candidates = _lock_ended(session, keep, limit, has_checkpoints)
    checkpoints = delete(CheckpointTable).where(CheckpointTable.job_id.in_(candidates))
    job_ids = set(session.scalars(checkpoints.returning(CheckpointTable.job_id)))
    session.execute(delete(CheckpointFileTable).where(CheckpointFileTable.job_id.in_(job_ids)))
    return len(job_ids)


def delete_jobs(session: Session, keep: timedelta, limit: int) -> int:
    """Delete jobs that ended `keep` ago, with all rows that belong to them; returns how many."""
    ids = _lock_ended(session, keep, limit)
    session.execute(delete(JobTable).where(JobTable.id.in_(ids)))
    return len(ids)


def drop_embeddings(session: Session, keep: timedelta, limit: int) -> int:
    """Delete label-text embeddings that were saved `keep` ago; returns how many."""
    return _drop_cached(session, EmbeddingTable, EmbeddingTable.created_at <= func.now() - keep, limit)


def drop_banks(session: Session, keep: timedelta, limit: int) -> int:
    """Delete warm-ups that no job has used for `keep`; returns how many."""
    return _drop_cached(session, BankTable, BankTable.used_at <= func.now() - keep, limit)


def _drop_cached(
    session: Session, table: type[CachedFileTable], is_old: ColumnElement[bool], limit: int
) -> int:
    old = select(table.cache_key).where(is_old).limit(limit).with_for_update(skip_locked=True)
    keys = session.scalars(old).all()
    session.execute(delete(table).where(table.cache_key.in_(keys)))
    return len(keys)


def _lock_ended(
    session: Session, keep: timedelta, limit: int, *conditions: ColumnElement[bool]
) -> Sequence[str]:
    query = (
        select(JobTable.id)
        .where(JobTable.finished_at <= func.now() - keep, *conditions)
        .order_by(JobTable.finished_at)
        .limit(limit)
        .with_for_update(of=JobTable, skip_locked=True)
    )
    return session.scalars(query).all()
