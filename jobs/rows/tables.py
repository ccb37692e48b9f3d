"""The tables of jobs. One job is one row; its log, series and files are deleted with it."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    and_,
    func,
    not_,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from jobs.kinds import KINDS
from jobs.states import HELD_IN, WAITING_IN, JobStatus, QueueName
from jobs.values.files import Artifact, StoredFile
from jobs.values.jobs import Failure, Job, JobSummary, PhaseSpan, ProgressReport, summarise
from jobs.values.log import EventType, JobEvent

# The newest version of migrations/versions, for which this code was written; a test compares the two.
SCHEMA_VERSION = "0007"

# Plain JSON, not JSONB: a label may hold any character, and JSONB refuses U+0000.
Document = dict[str, Any]


def _statuses() -> str:
    return ", ".join(f"'{status}'" for status in JobStatus)


class Table(DeclarativeBase):
    """The registry of tables; constraints have names, so that later migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as a plain class attribute
        str: Text,
        datetime: TIMESTAMP(timezone=True),
        Document: JSON,
        dict[str, float]: JSON,
        dict[str, str]: JSON,
    }


class JobTable(Table):
    """A job, its lease, and its place in the queue; the row is also the outbox of its doorbell."""

    __tablename__ = "job"

    id: Mapped[str] = mapped_column(primary_key=True)
    # The order of arrival, which is unique even for two jobs of one microsecond.
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    status: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="distill")
    priority: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    # Whether the kind is `validate`, for the previous release: a trigger keeps the two equal.
    dry_run: Mapped[bool] = mapped_column(server_default=text("false"))
    phase: Mapped[str | None]
    spec: Mapped[Document]
    resolved: Mapped[Document | None]
    report: Mapped[Document | None]
    # `summarise` of spec and resolved, so that a list need not read megabytes.
    summary: Mapped[Document | None]
    progress: Mapped[ProgressReport] = mapped_column(JSON)
    timeline: Mapped[list[PhaseSpan]] = mapped_column(JSON)
    latest_metrics: Mapped[dict[str, float]]
    quality: Mapped[Document | None]
    error: Mapped[Failure | None] = mapped_column(JSON)

    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    # Seconds under earlier claims; with the time since claimed_at they count towards max_runtime_seconds.
    ran_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    max_runtime_seconds: Mapped[int | None] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    pause_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    rung_at: Mapped[datetime | None]

    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_hash: Mapped[str | None]
    # Read only where a message is about to be signed; no record carries it.
    webhook_secret: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)

    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    last_seq: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    files: Mapped[list["FileTable"]] = relationship(
        lazy="raise", passive_deletes=True, order_by="FileTable.name", cascade="all, delete-orphan"
    )

    __table_args__ = (
        UniqueConstraint("number"),
        CheckConstraint(f"status IN ({_statuses()})", name="status"),
        CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="idempotency"),
        CheckConstraint("(lease_until IS NULL) = (claimed_at IS NULL)", name="lease"),
        Index("ix_job_lease_until", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
        Index("ix_job_status_number", "status", "number"),
    )

    @hybrid_property
    def is_waiting(self) -> bool:
        """Whether a worker may take the job from its queue."""
        return self.status in WAITING_IN.values() and self.lease_until is None and not self.cancel_requested

    @is_waiting.inplace.expression
    @classmethod
    def _is_waiting(cls) -> ColumnElement[bool]:
        return cls._is_free_with(cls.status.in_(WAITING_IN.values()))

    @classmethod
    def is_waiting_in(cls, queue: QueueName) -> ColumnElement[bool]:
        """The same in a query, for the workers of one queue."""
        return cls._is_free_with(cls.status == WAITING_IN[queue])

    @classmethod
    def _is_free_with(cls, status: ColumnElement[bool]) -> ColumnElement[bool]:
        return and_(status, cls.lease_until.is_(None), not_(cls.cancel_requested))

    @hybrid_property
    def is_held(self) -> bool:
        """Whether a worker has the job under a lease, even one that ran out."""
        return self.status in HELD_IN.values() and self.lease_until is not None

    @is_held.inplace.expression
    @classmethod
    def _is_held(cls) -> ColumnElement[bool]:
        return and_(cls.status.in_(HELD_IN.values()), cls.lease_until.is_not(None))

    def is_lost_at(self, now: datetime) -> bool:
        """Whether a worker has the job under a lease that ran out before `now`, the database's time."""
        return self.is_held and self.lease_until is not None and self.lease_until < now

    @classmethod
    def is_lost(cls) -> ColumnElement[bool]:
        """The same in a query, at the time of its transaction."""
        return and_(cls.is_held, cls.lease_until < func.now())

    def as_job(self) -> Job:
        """Copy the row and its files, which must have been loaded, into a record."""
        return Job(
            **self._summary_fields() | {"summary": self.summary or summarise(self.spec, self.resolved)},
            spec=self.spec,
            resolved=self.resolved,
            report=self.report,
            timeline=self.timeline,
            fence=self.fence,
            lease_until=self.lease_until,
            max_runtime_seconds=self.max_runtime_seconds,
            metadata=self.spec["metadata"],
        )

    def as_summary(self) -> JobSummary:
        """Copy what a list shows; needs none of the columns that can be large."""
        return JobSummary(**self._summary_fields())

    def _summary_fields(self) -> dict[str, Any]:
        files = sorted(self.files, key=lambda file: file.name)
        return {
            "id": self.id,
            "status": JobStatus(self.status),
            "phase": self.phase,
            "kind": KINDS[self.kind],
            "summary": self.summary or {},
            "progress": self.progress,
            "latest_metrics": self.latest_metrics,
            "quality": self.quality,
            "error": self.error,
            "uploads": {file.name: file.as_file() for file in files if file.kind == "upload"},
            "attempt": self.attempt,
            "cancel_requested": self.cancel_requested,
            "pause_requested": self.pause_requested,
            "version": self.version,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "artifacts": [file.as_artifact() for file in files if file.kind == "artifact"],
        }


# The jobs that workers look for, in their order.
Index(
    "ix_job_waiting",
    JobTable.status,
    JobTable.priority.desc(),
    JobTable.number,
    postgresql_where=JobTable.is_waiting,
)


class EventTable(Table):
    """One entry of a job's ordered log."""

    __tablename__ = "event"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str]
    data: Mapped[Document]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The claim and the line under which a child printed it; NULL for the service's own reports.
    fence: Mapped[int | None] = mapped_column(BigInteger)
    line: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("job_id", "fence", "line"),)

    def as_event(self) -> JobEvent:
        """Copy the row into a record."""
        return JobEvent(self.job_id, self.seq, cast("EventType", self.type), self.data, self.created_at)


class MetricTable(Table):
    """One value of a series; a resumed run writes its steps again, under a higher fence."""

    __tablename__ = "metric"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    value: Mapped[float] = mapped_column(Double)
    fence: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FileTable(Table):
    """A file of a job in the object store: an upload, a canonical input, or an artifact.

    The sweep does not remove a file from the store while `kept` is true. Some time after the end of the
    job it becomes false (jobs/rows/retention.py); name, length and hash stay.
    """

    __tablename__ = "file"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    filename: Mapped[str | None]
    media_type: Mapped[str | None]
    kept: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('upload', 'input', 'artifact')", name="kind"),
        Index("ix_file_key", "key", postgresql_where=text("kept")),
    )

    def as_file(self) -> StoredFile:
        """Copy the file's place in the store into a record."""
        return StoredFile(self.key, self.sha256, self.bytes, self.filename)

    def as_artifact(self) -> Artifact:
        """Copy an artifact into a record."""
        media_type = self.media_type or "application/octet-stream"
        return Artifact(
            self.name, self.key, self.sha256, self.bytes, media_type, self.job_id, self.created_at, self.kept
        )
