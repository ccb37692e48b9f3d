"""The saved states of a run: tables and queries. The job's row is locked whenever one is written.

A checkpoint names its files by hash. Bodies that several checkpoints share (the segments of the bank
never change) have one row, and one file in the store.
"""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Integer, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.rows.tables import JobTable, Table
from jobs.values import Checkpoint, StoredFile

# The newest, and two to fall back on should the store have damaged it.
KEPT = 3


class CheckpointTable(Table):
    """A saved state of a run, from which a later claim goes on.

    One claim has one state at one step: the newer one, where a run went back and came by again.
    """

    __tablename__ = "checkpoint"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    files: Mapped[dict[str, str]]  # name -> sha256
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CheckpointFileTable(Table):
    """A body that checkpoints of a job share: what does not change between two is stored once."""

    __tablename__ = "checkpoint_file"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


def add(session: Session, job: JobTable, checkpoint: Checkpoint) -> bool:
    """Write a checkpoint of the present claim, and let go what it makes superfluous.

    A run that went back saves a step that lies behind the newest: what this claim has saved from
    there on is of a way it has left, and is let go.

    Returns:
        False where this very state was written before; nothing is changed then.
    """
    files = {name: stored.sha256 for name, stored in checkpoint.files.items()}
    of_claim = (CheckpointTable.job_id == job.id, CheckpointTable.fence == job.fence)
    if (
        session.scalar(
            select(CheckpointTable.files).where(*of_claim, CheckpointTable.step == checkpoint.step)
        )
        == files
    ):
        return False
    session.execute(delete(CheckpointTable).where(*of_claim, CheckpointTable.step >= checkpoint.step))
    values = {"job_id": job.id, "fence": job.fence, "step": checkpoint.step, "epoch": checkpoint.epoch}
    session.execute(insert(CheckpointTable).values(**values, files=files))
    bodies = {stored.sha256: stored for stored in checkpoint.files.values()}
    rows = [
        {"job_id": job.id, "sha256": stored.sha256, "key": stored.key, "bytes": stored.bytes}
        for stored in bodies.values()
    ]
    if rows:
        # A body stored anew takes the place of one that the store has damaged.
        new = insert(CheckpointFileTable).values(rows)
        changed = {"key": new.excluded.key, "bytes": new.excluded.bytes}
        session.execute(new.on_conflict_do_update(index_elements=["job_id", "sha256"], set_=changed))
    _drop_superfluous(session, job.id)
    return True


def read(session: Session, job_id: str) -> list[Checkpoint]:
    """Read the checkpoints of a job, newest first."""
    bodies = {
        body.sha256: StoredFile(body.key, body.sha256, body.bytes)
        for body in session.scalars(select(CheckpointFileTable).where(CheckpointFileTable.job_id == job_id))
    }
    return [
        Checkpoint(
            row.fence, row.epoch, row.step, {name: bodies[sha256] for name, sha256 in row.files.items()}
        )
        for row in _newest_first(session, job_id)
    ]


def _drop_superfluous(session: Session, job_id: str) -> None:
    rows = _newest_first(session, job_id)
    kept, dropped = rows[:KEPT], rows[KEPT:]
    if not dropped:
        return
    places = [(row.job_id, row.fence, row.step) for row in dropped]
    place = tuple_(CheckpointTable.job_id, CheckpointTable.fence, CheckpointTable.step)
    session.execute(delete(CheckpointTable).where(place.in_(places)))
    needed = {sha256 for row in kept for sha256 in row.files.values()}
    session.execute(
        delete(CheckpointFileTable).where(
            CheckpointFileTable.job_id == job_id, CheckpointFileTable.sha256.not_in(needed)
        )
    )


def _newest_first(session: Session, job_id: str) -> list[CheckpointTable]:
    order = (CheckpointTable.fence.desc(), CheckpointTable.step.desc())
    listed = select(CheckpointTable).where(CheckpointTable.job_id == job_id).order_by(*order)
    return list(session.scalars(listed))
