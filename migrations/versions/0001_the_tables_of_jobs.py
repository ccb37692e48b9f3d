"""The tables of jobs, and the steps a job's status may take.

Revision ID: 0001
Revises: nothing
Create Date: 2026-11-22
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# A fault of a program must not change a job that has ended.
STEP_FUNCTION = """
CREATE FUNCTION check_job_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('succeeded', 'failed', 'cancelled') AND (
        NEW.status <> OLD.status
        OR NEW.error::text IS DISTINCT FROM OLD.error::text
        OR NEW.finished_at IS DISTINCT FROM OLD.finished_at
    ) THEN
        RAISE EXCEPTION 'job % has ended as % and never changes', OLD.id, OLD.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'job_step';
    END IF;
    IF NEW.status <> OLD.status AND NOT (CASE OLD.status
        WHEN 'validating' THEN NEW.status IN ('queued', 'succeeded', 'failed', 'cancelled')
        WHEN 'queued' THEN NEW.status IN ('running', 'failed', 'cancelled')
        WHEN 'running' THEN NEW.status IN ('queued', 'paused', 'succeeded', 'failed', 'cancelled')
        WHEN 'paused' THEN NEW.status IN ('queued', 'failed', 'cancelled')
    END) THEN
        RAISE EXCEPTION 'job % cannot step from % to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'job_step';
    END IF;
    RETURN NEW;
END
$$
"""

STEP_TRIGGER = """
CREATE TRIGGER job_step BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION check_job_step()
"""


def upgrade() -> None:
    """Create the tables and the trigger."""
    _create_job()
    _index_job()
    _create_event()
    _create_file()
    _create_metric()
    _create_embedding()
    op.execute(STEP_FUNCTION)
    op.execute(STEP_TRIGGER)


def downgrade() -> None:
    """Drop the tables and the trigger."""
    for table in ("embedding", "metric", "file", "event", "job"):
        op.drop_table(table)
    op.execute("DROP FUNCTION check_job_step()")


def _create_job() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("resolved", sa.JSON(), nullable=True),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("timeline", sa.JSON(), nullable=False),
        sa.Column("latest_metrics", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("claimed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ran_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_runtime_seconds", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rung_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _created_at(),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('validating', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_job_status"),
        ),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (request_hash IS NULL)", name=op.f("ck_job_idempotency")
        ),
        sa.CheckConstraint("(lease_until IS NULL) = (claimed_at IS NULL)", name=op.f("ck_job_lease")),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("idempotency_key", name="uq_job_idempotency_key"),
        sa.UniqueConstraint("number", name="uq_job_number"),
    )


def _index_job() -> None:
    op.create_index(
        "ix_job_lease_until", "job", ["lease_until"], postgresql_where=sa.text("lease_until IS NOT NULL")
    )
    op.create_index("ix_job_status_number", "job", ["status", "number"])
    op.create_index(
        "ix_job_waiting",
        "job",
        ["status", sa.literal_column("dry_run DESC"), "number"],
        postgresql_where=sa.text(
            "status IN ('validating', 'queued') AND lease_until IS NULL AND NOT cancel_requested"
        ),
    )


def _created_at() -> sa.Column[datetime]:
    moment = postgresql.TIMESTAMP(timezone=True)
    return sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False)


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        _created_at(),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column("line", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_event_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_event"),
        sa.UniqueConstraint("job_id", "fence", "line", name="uq_event_job_id_fence_line"),
    )


def _create_file() -> None:
    op.create_table(
        "file",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("kept", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        _created_at(),
        sa.CheckConstraint("kind IN ('upload', 'input', 'artifact')", name=op.f("ck_file_kind")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_file_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "kind", "name", name="pk_file"),
    )
    op.create_index("ix_file_key", "file", ["key"], postgresql_where=sa.text("kept"))


def _create_metric() -> None:
    op.create_table(
        "metric",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_metric_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", "step", name="pk_metric"),
    )


def _create_embedding() -> None:
    op.create_table(
        "embedding",
        sa.Column("cache_key", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("cache_key", name="pk_embedding"),
    )
    op.create_index("ix_embedding_key", "embedding", ["key"])
