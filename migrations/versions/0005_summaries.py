"""Summaries of jobs for lists, which do not read documents of megabytes.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-25
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BATCH = 20  # rows at once, of megabytes each


def upgrade() -> None:
    """Give every job its summary; one that an older service writes during an upgrade has none."""
    op.add_column("job", sa.Column("summary", sa.JSON(), nullable=True))
    job = sa.table(
        "job",
        sa.column("id", sa.Text()),
        *(sa.column(name, sa.JSON()) for name in ("spec", "resolved", "summary")),
    )
    connection = op.get_bind()
    # Computed here, because the database's functions refuse U+0000 in a label.
    ids = list(connection.scalars(sa.select(job.c.id)))
    for start in range(0, len(ids), _BATCH):
        query = sa.select(job.c.id, job.c.spec, job.c.resolved).where(
            job.c.id.in_(ids[start : start + _BATCH])
        )
        for row in connection.execute(query).all():
            summary = _summary(row.spec, row.resolved)
            connection.execute(sa.update(job).where(job.c.id == row.id).values(summary=summary))


def _summary(spec: dict[str, Any], resolved: dict[str, Any] | None) -> dict[str, Any]:
    teacher = (resolved or {}).get("teacher_architecture") or spec["teacher"]["architecture"]
    return {
        "num_classes": len(spec["labels"]),
        "input_size": spec["teacher"]["input_size"],
        "teacher_architecture": teacher,
        "student_architecture": spec["student"]["architecture"],
        "preset": spec["preset"],
        "metadata": spec["metadata"],
        "webhook": spec.get("webhook") is not None,
    }


def downgrade() -> None:
    """Drop the summaries."""
    op.drop_column("job", "summary")
