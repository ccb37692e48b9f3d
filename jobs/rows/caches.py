"""Tables and queries of files that are kept for later jobs, by a digest of all that they depend on.

embedding   label-text embeddings, for jobs with the same labels
bank        warm-ups, for jobs on the same teacher

Rows are written once: the first file saved under a key stays until retention drops its row.
"""

from datetime import datetime

from sqlalchemy import BigInteger, and_, delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.rows.tables import Table
from jobs.values.files import Bank, StoredFile


class CachedFileTable(Table):
    """A stored file by a digest of what it depends on; the first one that is saved stays."""

    __abstract__ = True

    cache_key: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(index=True)
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)

    def as_file(self) -> StoredFile:
        """Copy the row into a record."""
        return StoredFile(self.key, self.sha256, self.bytes)


class EmbeddingTable(CachedFileTable):
    """Label-text embeddings by what they depend on, so that the next job with these labels reuses them."""

    __tablename__ = "embedding"

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BankTable(CachedFileTable):
    """Warm-ups by what they depend on; the job that made one may be deleted before it."""

    __tablename__ = "bank"

    job_id: Mapped[str]
    used_at: Mapped[datetime] = mapped_column(server_default=func.now())


def find_embedding(session: Session, cache_key: str) -> StoredFile | None:
    """Look up label-text embeddings by what they depend on."""
    row = session.get(EmbeddingTable, cache_key)
    return None if row is None else row.as_file()


def save_embedding(session: Session, cache_key: str, file: StoredFile) -> None:
    """Save label-text embeddings, unless there are some already."""
    _save(session, EmbeddingTable, cache_key, file)


def use_bank(session: Session, cache_key: str) -> Bank | None:
    """Look up a warm-up by what it depends on; its time of use is now."""
    use = update(BankTable).where(BankTable.cache_key == cache_key).values(used_at=func.now())
    row = session.scalar(use.returning(BankTable))
    return None if row is None else Bank(row.as_file(), row.job_id)


def save_bank(session: Session, cache_key: str, bank: Bank) -> None:
    """Save a warm-up, unless there is one already."""
    _save(session, BankTable, cache_key, bank.file, job_id=bank.job_id)


def drop_bank(session: Session, cache_key: str, sha256: str) -> None:
    """Drop a warm-up that turned out damaged, so that a whole one can replace it."""
    is_damaged = and_(BankTable.cache_key == cache_key, BankTable.sha256 == sha256)
    session.execute(delete(BankTable).where(is_damaged))


def _save(
    session: Session, table: type[CachedFileTable], cache_key: str, file: StoredFile, **columns: str
) -> None:
    values = {"cache_key": cache_key, "key": file.key, "sha256": file.sha256, "bytes": file.bytes}
    session.execute(insert(table).values(values | columns).on_conflict_do_nothing())
