"""Tables and queries of the saved states of a run. The job's row is locked while one is written.

A checkpoint names its files by hash. Bodies that several checkpoints share (the segments of the bank
never change) have one row, and one file in the store.
"""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Integer, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.rows.tables import JobTable, Table
from jobs.values.files import Checkpoint, StoredFile

# The newest checkpoint, and two more in case the store has damaged it.
MAX_CHECKPOINTS = 3


class CheckpointTable(Table):
    """A saved state of a run, from which a later claim continues.

    A claim has one state at each step: the newer one, where a run went back and passed the step again.
    """

    __tablename__ = "checkpoint"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    files: Mapped[dict[str, str]]  # name -> sha256
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CheckpointFileTable(Table):
    """A file that checkpoints of a job share: an unchanged file is stored once."""

    __tablename__ = "checkpoint_file"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


def add(session: Session, job: JobTable, checkpoint: Checkpoint) -> bool:
    """Write a checkpoint of the present claim, and drop those that it makes superfluous.

    A run that went back saves a step before the newest one. Checkpoints of this claim at later steps
    belong to the part that the run repeats, and are dropped.

    Returns:
        False if the same state was written before; nothing is changed then.
    """
    files = {name: file.sha256 for name, file in checkpoint.files.items()}
    of_claim = (CheckpointTable.job_id == job.id, CheckpointTable.fence == job.fence)
    same_step = select(CheckpointTable.files).where(*of_claim, CheckpointTable.step == checkpoint.step)
    if session.scalar(same_step) == files:
        return False
    session.execute(delete(CheckpointTable).where(*of_claim, CheckpointTable.step >= checkpoint.step))
    values = {"job_id": job.id, "fence": job.fence, "step": checkpoint.step, "epoch": checkpoint.epoch}
    session.execute(insert(CheckpointTable).values(**values, files=files))
    bodies = {file.sha256: file for file in checkpoint.files.values()}
    rows = [
        {"job_id": job.id, "sha256": file.sha256, "key": file.key, "bytes": file.bytes}
        for file in bodies.values()
    ]
    if rows:
        # A body that is stored again replaces one that the store has damaged.
        new = insert(CheckpointFileTable).values(rows)
        place = {"key": new.excluded.key, "bytes": new.excluded.bytes}
        session.execute(new.on_conflict_do_update(index_elements=["job_id", "sha256"], set_=place))
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
    current, superfluous = rows[:MAX_CHECKPOINTS], rows[MAX_CHECKPOINTS:]
    if not superfluous:
        return
    keys = [(row.job_id, row.fence, row.step) for row in superfluous]
    key = tuple_(CheckpointTable.job_id, CheckpointTable.fence, CheckpointTable.step)
    session.execute(delete(CheckpointTable).where(key.in_(keys)))
    hashes = {sha256 for row in current for sha256 in row.files.values()}
    session.execute(
        delete(CheckpointFileTable).where(
            CheckpointFileTable.job_id == job_id, CheckpointFileTable.sha256.not_in(hashes)
        )
    )


def _newest_first(session: Session, job_id: str) -> list[CheckpointTable]:
    order = (CheckpointTable.fence.desc(), CheckpointTable.step.desc())
    rows = session.scalars(select(CheckpointTable).where(CheckpointTable.job_id == job_id).order_by(*order))
    return list(rows)
