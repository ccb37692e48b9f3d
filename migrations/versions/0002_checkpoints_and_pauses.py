"""Checkpoints of running jobs, and requests to pause a job.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-22
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# As in 0001, with one step more: a job that waits in its queue may be paused.
STEP_FUNCTION = """
CREATE OR REPLACE FUNCTION check_job_step() RETURNS trigger LANGUAGE plpgsql AS $$
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
        WHEN 'queued' THEN NEW.status IN ({from_queued})
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


def upgrade() -> None:
    """Create the tables of checkpoints, and let jobs be paused."""
    pause_requested: sa.Column[bool] = sa.Column(
        "pause_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
    )
    op.add_column("job", pause_requested)
    op.execute(STEP_FUNCTION.replace("{from_queued}", "'running', 'paused', 'failed', 'cancelled'"))
    op.create_table(
        "checkpoint",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_checkpoint_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "fence", "step", name="pk_checkpoint"),
    )
    op.create_table(
        "checkpoint_file",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_checkpoint_file_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "sha256", name="pk_checkpoint_file"),
    )
    op.create_index("ix_checkpoint_file_key", "checkpoint_file", ["key"])


def downgrade() -> None:
    """Drop the checkpoints; a paused job must be resumed or cancelled before."""
    op.drop_table("checkpoint_file")
    op.drop_table("checkpoint")
    op.execute(STEP_FUNCTION.replace("{from_queued}", "'running', 'failed', 'cancelled'"))
    op.drop_column("job", "pause_requested")
