"""The kind and the priority of each job, in place of `dry_run`.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# During an upgrade the previous release writes and reads `dry_run`, this release `kind` and `priority`.
KIND_FUNCTION = """
CREATE FUNCTION fill_job_kind() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.dry_run AND NEW.kind = 'distill' THEN
        NEW.kind := 'validate';
        NEW.priority := 1;
    END IF;
    NEW.dry_run := NEW.kind = 'validate';
    RETURN NEW;
END
$$
"""
WAITING = "status IN ('validating', 'queued') AND lease_until IS NULL AND NOT cancel_requested"


def upgrade() -> None:
    """Set the kind of every job; a trigger sets it for jobs that the previous release inserts meanwhile."""
    op.add_column("job", sa.Column("kind", sa.Text(), server_default="distill", nullable=False))
    op.add_column("job", sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE job SET kind = 'validate', priority = 1 WHERE dry_run")
    op.alter_column("job", "dry_run", server_default=sa.text("false"))
    op.execute(KIND_FUNCTION)
    op.execute("CREATE TRIGGER job_kind BEFORE INSERT ON job FOR EACH ROW EXECUTE FUNCTION fill_job_kind()")
    _index_waiting("priority DESC")


def downgrade() -> None:
    """Drop the kinds; only the two kinds that `dry_run` distinguishes may exist."""
    _index_waiting("dry_run DESC")
    op.execute("DROP TRIGGER job_kind ON job")
    op.execute("DROP FUNCTION fill_job_kind()")
    op.alter_column("job", "dry_run", server_default=None)
    op.drop_column("job", "priority")
    op.drop_column("job", "kind")


def _index_waiting(first: str) -> None:
    op.drop_index("ix_job_waiting", "job")
    op.create_index(
        "ix_job_waiting",
        "job",
        ["status", sa.literal_column(first), "number"],
        postgresql_where=sa.text(WAITING),
    )
