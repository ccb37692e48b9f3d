"""How good the student of a job is.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-30
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room for the quality; a job that ended before has none."""
    op.add_column("job", sa.Column("quality", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop the qualities."""
    op.drop_column("job", "quality")
