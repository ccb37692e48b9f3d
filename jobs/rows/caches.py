"""Files that are kept for later jobs, by a digest of all that they depend on: tables and queries.

embedding   label-text embeddings, for jobs with the same labels
bank        warm-ups, for jobs on the same teacher

Rows are written once: the first file saved under a key stays until retention drops its row.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.rows.tables import Table
from jobs.values import StoredFile


class CachedFileTable(Table):
    """A stored file by a digest of what it depends on; the first one that is kept stays."""

    __abstract__ = True

    cache_key: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(index=True)
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)

    @property
    def stored(self) -> StoredFile:
        """The file, as it is handed on."""
        return StoredFile(self.key, self.sha256, self.bytes)


class EmbeddingTable(CachedFileTable):
    """Label-text embeddings by what they depend on, so that the next job with these labels skips them."""

    __tablename__ = "embedding"

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BankTable(CachedFileTable):
    """Warm-ups by what they depend on; the job that made one may be deleted before it."""

    __tablename__ = "bank"

    job_id: Mapped[str]
    used_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True)
class Bank:
    """A kept warm-up.

    Args:
        file: where it lies.
        job_id: whose run made it.
    """

    file: StoredFile
    job_id: str


def find_embedding(session: Session, cache_key: str) -> StoredFile | None:
    """Look up label-text embeddings by what they depend on."""
    found = session.get(EmbeddingTable, cache_key)
    return None if found is None else found.stored


def save_embedding(session: Session, cache_key: str, stored: StoredFile) -> None:
    """Keep label-text embeddings, unless there are some already."""
    _save(session, EmbeddingTable, cache_key, stored)


def use_bank(session: Session, cache_key: str) -> Bank | None:
    """Look up a warm-up by what it depends on; its time of use is now."""
    used = update(BankTable).where(BankTable.cache_key == cache_key).values(used_at=func.now())
    found = session.scalar(used.returning(BankTable))
    return None if found is None else Bank(found.stored, found.job_id)


def save_bank(session: Session, cache_key: str, bank: Bank) -> None:
    """Keep a warm-up, unless there is one already."""
    _save(session, BankTable, cache_key, bank.file, job_id=bank.job_id)


def drop_bank(session: Session, cache_key: str, sha256: str) -> None:
    """Forget a warm-up that turned out damaged, so that a whole one can take its place."""
    damaged = (BankTable.cache_key == cache_key, BankTable.sha256 == sha256)
    session.execute(delete(BankTable).where(*damaged))


def _save(
    session: Session, table: type[CachedFileTable], cache_key: str, stored: StoredFile, **more: str
) -> None:
    values = {"cache_key": cache_key, "key": stored.key, "sha256": stored.sha256, "bytes": stored.bytes}
    session.execute(insert(table).values(values | more).on_conflict_do_nothing())
