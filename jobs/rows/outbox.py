"""Messages to web hooks: table and queries. Written with the step they report, sent later by upkeep.

A message is sent at least once. If its sender vanishes after the receiver's response, but before the
outcome is written, the message is sent again with the same id.
"""

import re
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

import pydantic_core
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    exists,
    func,
    select,
    text,
    true,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.errors import DeliveryNotFound
from jobs.kinds import VALIDATE
from jobs.rows.tables import Document, JobTable, Table
from jobs.webhooks.deliveries import GONE, Answer, Delivery, DeliveryStatus, DueDelivery, retry_delay

_DELIVERY_ID = re.compile(r"msg_[0-9a-f]{32}")


class DeliveryTable(Table):
    """A message to a job's web hook, written with the step that it reports: the outbox."""

    __tablename__ = "delivery"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    event: Mapped[str]
    data: Mapped[Document]
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    # Taking the message moves this into the future: if the taker vanishes, the message is due again then.
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    last_status_code: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="due"),
        Index("ix_delivery_due", "next_attempt_at", postgresql_where=text("status = 'pending'")),
    )

    def as_delivery(self) -> Delivery:
        """Copy the row into a record, without its content."""
        columns = {name: getattr(self, name) for name in Delivery.__dataclass_fields__ if name != "status"}
        return Delivery(status=DeliveryStatus(self.status), **columns)


def announce(session: Session, job: JobTable) -> None:
    """Write a message about the job's new status, if its web hook is registered for that.

    A receiver that answered 410 (Gone) gets no more messages.
    """
    webhook = job.spec.get("webhook")
    event = f"job.{job.status}"
    if webhook is None or event not in webhook["events"]:
        return
    is_gone = exists().where(DeliveryTable.job_id == job.id, DeliveryTable.last_status_code == GONE)
    if not session.scalar(select(is_gone)):
        message_id = f"msg_{uuid.uuid4().hex}"
        session.add(DeliveryTable(id=message_id, job_id=job.id, event=event, data=_payload(job)))


def take(session: Session, lease: timedelta, limit: int) -> list[DueDelivery]:
    """Take messages that are due; no other sender gets them until the lease runs out."""
    due = session.execute(
        select(DeliveryTable, JobTable.spec, JobTable.webhook_secret, func.now())
        .join(JobTable, JobTable.id == DeliveryTable.job_id)
        .where(DeliveryTable.status == DeliveryStatus.PENDING, DeliveryTable.next_attempt_at <= func.now())
        .order_by(DeliveryTable.next_attempt_at)
        .limit(limit)
        .with_for_update(of=DeliveryTable, skip_locked=True)
    ).all()
    messages = []
    for delivery, spec, secret, now in due:
        delivery.attempts += 1
        delivery.next_attempt_at = now + lease
        created_at = delivery.created_at.isoformat()
        content = {"type": delivery.event, "timestamp": created_at, "data": delivery.data}
        messages.append(
            DueDelivery(
                id=delivery.id,
                job_id=delivery.job_id,
                event=delivery.event,
                attempt=delivery.attempts,
                taken_at=now,
                url=spec["webhook"]["url"],
                secret=secret,
                content=pydantic_core.to_json(content),
            )
        )
    return messages


def settle(session: Session, due: DueDelivery, answer: Answer, chance: float) -> None:
    """Write the outcome of an attempt, unless the message was taken again since.

    After 410 (Gone) the job's other pending messages fail, too.

    Args:
        chance: in [0, 1); spreads the next attempt in time.
    """
    is_gone = answer.status_code == GONE
    if is_gone:
        # Without this lock a concurrent step could add a message that the query below does not see.
        session.execute(select(JobTable.id).where(JobTable.id == due.job_id).with_for_update())
    is_affected = true() if is_gone else DeliveryTable.id == due.id
    pending = session.scalars(
        select(DeliveryTable)
        .where(
            DeliveryTable.job_id == due.job_id, DeliveryTable.status == DeliveryStatus.PENDING, is_affected
        )
        .order_by(DeliveryTable.number)
        .with_for_update()
    ).all()
    attempts = (row for row in pending if (row.id, row.attempts) == (due.id, due.attempt))
    delivery = next(attempts, None)
    if delivery is None:
        return
    delivery.last_status_code, delivery.last_error = answer.status_code, answer.error
    delay = retry_delay(delivery.attempts, chance, answer.retry_after)
    if answer.is_accepted:
        delivery.status, delivery.delivered_at = DeliveryStatus.DELIVERED, func.now()
        delivery.next_attempt_at = None
    elif delay is not None and not is_gone:
        delivery.next_attempt_at = func.now() + delay
    else:
        for delivery in pending:
            delivery.status, delivery.next_attempt_at = DeliveryStatus.FAILED, None


def read(session: Session, job_id: str, limit: int, after: str | None) -> Sequence[DeliveryTable]:
    """Read at most `limit` messages of a job, newest first, that are older than the message `after`.

    Raises:
        DeliveryNotFound: `after` names none of them.
    """
    page = select(DeliveryTable).where(DeliveryTable.job_id == job_id)
    if after is not None:
        page = page.where(DeliveryTable.number < _find(session, job_id, after).number)
    return session.scalars(page.order_by(DeliveryTable.number.desc()).limit(limit)).all()


def send_again(session: Session, job_id: str, delivery_id: str) -> DeliveryTable:
    """Make a message due now, even if it was delivered or has failed.

    Raises:
        DeliveryNotFound: the job has none with this id.
    """
    delivery = _find(session, job_id, delivery_id, lock=True)
    delivery.status, delivery.next_attempt_at = DeliveryStatus.PENDING, func.now()
    delivery.delivered_at = None
    session.flush()
    session.refresh(delivery)
    return delivery


def _find(session: Session, job_id: str, delivery_id: str, *, lock: bool = False) -> DeliveryTable:
    row = None
    if _DELIVERY_ID.fullmatch(delivery_id):
        query = select(DeliveryTable).where(DeliveryTable.id == delivery_id, DeliveryTable.job_id == job_id)
        row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise DeliveryNotFound(
            f"Job {job_id} has no delivery {delivery_id[:64]!r}.", "A delivery's id begins with msg_."
        )
    return row


def _payload(job: JobTable) -> Document:
    """The job in a message: the fields of `GET /jobs/{id}` that describe its state."""
    artifacts = [file.as_artifact() for file in job.files if file.kind == "artifact"]
    return {
        "id": job.id,
        "status": job.status,
        "kind": job.kind,
        "dry_run": job.kind == VALIDATE.name,
        "attempt": job.attempt,
        "error": job.error,
        "metrics": {"latest": job.latest_metrics},
        "quality": job.quality,
        "artifacts": [{"name": a.name, "bytes": a.bytes, "sha256": a.sha256} for a in artifacts],
        "metadata": job.spec["metadata"],
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
    }
