"""What the database itself enforces, and what happens while it does not answer."""

import io
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import CheckViolation
from sqlalchemy import text

import migrations
from cli.local.embedded import EmbeddedPostgres
from jobs.errors import ServiceUnavailable
from jobs.rows.database import Database
from jobs.rows.tables import SCHEMA_VERSION
from jobs.states import TRANSITIONS, JobStatus
from jobs.values.claims import StageResult
from tests.support.jobs import inspected, running, submitted
from tests.support.services import Services, fresh_database, migrate

ROOT = Path(migrations.__file__).parent.parent


def alembic(url: str) -> Config:
    config = Config(ROOT / "alembic.ini", stdout=io.StringIO())
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


@pytest.fixture
def own_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url


@pytest.mark.usefixtures("empty")
def test_the_database_allows_the_steps_of_the_code_and_no_other(service: Services, database_url: str) -> None:
    refusal = pytest.raises(CheckViolation, match=submitted(service).id)
    with psycopg.connect(database_url) as connection:
        for start, end in itertools.product(JobStatus, JobStatus):
            connection.execute("ALTER TABLE job DISABLE TRIGGER job_step")
            connection.execute("UPDATE job SET status = %s", [start])
            connection.execute("ALTER TABLE job ENABLE TRIGGER job_step")
            connection.commit()
            expected = nullcontext() if end == start or end in TRANSITIONS[start] else refusal
            with expected, connection.transaction():
                connection.execute("UPDATE job SET status = %s", [end])


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET status = 'running'",
        "UPDATE job SET status = 'failed'",
        """UPDATE job SET error = '{"code": "other"}'""",
        "UPDATE job SET finished_at = now() + interval '1 hour'",
        "UPDATE job SET finished_at = NULL, status = 'queued'",
    ],
)
def test_an_ended_job_cannot_be_changed_by_hand(service: Services, database_url: str, statement: str) -> None:
    claim = running(service)
    service.workers.end_stage(claim, StageResult())
    with psycopg.connect(database_url) as connection, pytest.raises(CheckViolation, match="never changes"):
        connection.execute(statement)


def test_migrations_run_forward_and_back_and_end_at_the_tables_of_the_code(own_database: str) -> None:
    config = alembic(own_database)
    command.check(config)
    command.downgrade(config, "base")
    with psycopg.connect(own_database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        functions = connection.execute("SELECT 1 FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        assert (tables, functions.fetchall()) == ([("alembic_version",)], [])
    command.upgrade(config, "head")
    command.upgrade(config, "head")
    with psycopg.connect(own_database) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA_VERSION,)]


def test_each_migration_lets_the_previous_version_of_the_code_run(own_database: str) -> None:
    # In an upgrade it does, until the API is replaced and the workers have put their jobs away.
    config = alembic(own_database)
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    command.downgrade(config, revisions[0])
    before = _columns(own_database)
    for revision in revisions[1:]:
        command.upgrade(config, revision)
        after = _columns(own_database)
        for column, (kind, optional) in before.items():
            assert column in after, f"{revision} takes away {column}"
            assert after[column][0] == kind, f"{revision} changes the type of {column}"
            assert after[column][1] or not optional, f"{revision} demands {column}"
        tables = {table for table, _ in before}
        for table, name in set(after) - set(before):
            optional = after[table, name][1]
            assert table not in tables or optional, f"{revision} demands {table}.{name}"
        before = after


def test_the_code_was_written_for_the_newest_version() -> None:
    assert ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_heads() == [SCHEMA_VERSION]


def test_simultaneous_migrations_run_once(postgres: EmbeddedPostgres) -> None:
    with fresh_database(postgres) as url:
        command.downgrade(alembic(url), "base")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: migrate(url), range(2)))
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM job").fetchone() == (0,)


def test_migrating_without_a_database_names_the_missing_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAYER_DATABASE_URL", raising=False)
    with pytest.raises(SystemExit, match="NAYER_DATABASE_URL is not set"):
        command.upgrade(Config(ROOT / "alembic.ini"), "head")


def test_a_check_measures_each_part(service: Services, database_url: str) -> None:
    well = service.clients.check()
    assert set(well) == {"database", "migrations", "broker"}
    assert all(seconds is not None and 0 < seconds < 30 for seconds in well.values())

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'older'")
        try:
            assert service.clients.check()["migrations"] is None
        finally:
            connection.execute("UPDATE alembic_version SET version_num = %s", [SCHEMA_VERSION])


@pytest.mark.usefixtures("empty")
def test_an_outage_of_the_database_is_reported_and_passes(
    service: Services, postgres: EmbeddedPostgres
) -> None:
    job = inspected(service)
    postgres.kill()
    try:
        with pytest.raises(ServiceUnavailable) as failure:
            service.clients.get(job.id)
        assert failure.value.part == "database"
        assert postgres.password() not in str(failure.value)
        assert service.clients.check()["database"] is None
    finally:
        postgres.start()
    assert service.clients.get(job.id) == job
    assert service.workers.claim("distill", "tests") is not None


def cut_short(service: Services, url: str) -> None:
    with service.resources.database.transaction() as session:
        ask = session.connection().exec_driver_sql
        pid = ask("UPDATE job SET phase = 'x' RETURNING pg_backend_pid()").scalar()
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        ask("SELECT 1")


@pytest.mark.usefixtures("empty")
def test_a_connection_lost_in_a_transaction_rolls_it_back(service: Services, database_url: str) -> None:
    job = submitted(service)
    with pytest.raises(ServiceUnavailable):
        cut_short(service, database_url)
    assert service.clients.get(job.id) == job


def test_a_mistake_in_a_statement_is_not_an_outage(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(Exception, match="nothing") as failure, database.transaction() as session:
        session.connection().exec_driver_sql("SELECT nothing")
    assert not isinstance(failure.value, ServiceUnavailable)
    database.close()


def test_the_values_of_a_failed_statement_are_hidden(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(Exception, match="division") as failure, database.transaction() as session:
        session.execute(text("SELECT 1 / :zero WHERE :value <> ''"), {"zero": 0, "value": "a secret"})
    assert "a secret" not in str(failure.value)
    database.close()


def test_a_missing_database_is_noticed_quickly() -> None:
    database = Database("postgresql://nayer:secret@127.0.0.1:9/nayer")
    with pytest.raises(ServiceUnavailable) as failure, database.transaction() as session:
        session.connection()
    assert "secret" not in str(failure.value)
    database.close()


def _columns(url: str) -> dict[tuple[str, str], tuple[str, bool]]:
    """(table, column) -> its type, and whether a row may be written without it."""
    query = """
        SELECT table_name, column_name, data_type,
               is_nullable = 'YES' OR is_identity = 'YES' OR column_default IS NOT NULL
        FROM information_schema.columns WHERE table_schema = 'public'
    """
    with psycopg.connect(url) as connection:
        return {(table, name): (kind, optional) for table, name, kind, optional in connection.execute(query)}
