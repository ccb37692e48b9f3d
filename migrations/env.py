"""Runs alembic on the database, in one process at a time even if many services start together."""

import os

from alembic import context
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import Connection, make_url

from jobs.rows import caches, checkpoints, outbox  # noqa: F401 - their tables count too
from jobs.rows.tables import Table

# Any number will do, as long as nothing else in this database takes the same lock.
MIGRATION_LOCK = 7_106_520_001


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Table.metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.run_migrations()


def _run() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or os.environ.get("NAYER_DATABASE_URL")
    if not url:
        raise SystemExit(
            "NAYER_DATABASE_URL is not set; give the database as postgresql://user:password@host/name"
        )
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=pool.NullPool,
        connect_args={"connect_timeout": 10, "options": "-c lock_timeout=60s -c timezone=UTC"},
    )
    with engine.connect() as connection:
        _migrate(connection)


_run()
