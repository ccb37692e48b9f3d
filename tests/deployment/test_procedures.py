"""The commands of docs/operations.md, run as they are written, with the real programs of PostgreSQL and tar.

There is no container engine here: a script in place of `docker` runs what would run in a container, with the
addresses and folders of this machine. What Compose itself would do (start, stop, replace) is only recorded.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from cli.local.embedded import EmbeddedPostgres, _postgres_binaries
from tests.deployment.recipes import PROGRAMS, ROOT, block_of, compose, services, write_env
from tests.support.services import migrate

ROW = ("a cache key", "a key", "a hash", 4, "a job")

DOCKER = """#!/bin/sh
echo "$*" >>calls.log
case "$*" in
    "$FAILING") exit 1 ;;
    "compose config "*) shift; exec docker-compose "$@" ;;
    "compose exec -T postgres "*) shift 4; exec "$@" ;;
    "compose run --rm -T --no-deps --entrypoint tar s3 -C /data "*)
        shift 10; exec tar -C "$STORE_FOLDER" "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of its own: a test changes the password of its user."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


@pytest.fixture
def database(server: EmbeddedPostgres) -> Iterator[str]:
    """The migrated database `nayer`, as the compose file names it."""
    _empty(server)
    migrate(server.url_of("nayer"))
    yield server.url_of("nayer")
    _drop(server)


class Machine:
    """A folder with `.env`, in which the guide's commands are run."""

    def __init__(self, folder: Path, server: EmbeddedPostgres):
        self.folder = folder
        self.env_file = write_env(folder)
        for name in ("docker-compose.yml", "Dockerfile"):
            shutil.copy(ROOT / name, folder)
        (folder / "store").mkdir()
        program = folder / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(DOCKER)
        program.chmod(0o755)
        self.environment = {
            "PATH": f"{program.parent}:{_postgres_binaries()}:{PROGRAMS}:{os.environ['PATH']}",
            "HOME": str(folder),
            **{"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": server.password()},
        }

    def follow(
        self, heading: str, store: str = "store", failing: str = "none", succeeds: bool = True
    ) -> list[str]:
        """Run the block under a heading, with one call of `docker` failing if named; return all its calls.

        The real Compose reads each call too, as far as it can without an engine.
        """
        log = self.folder / "calls.log"
        log.unlink(missing_ok=True)
        environment = {**self.environment, "STORE_FOLDER": str(self.folder / store), "FAILING": failing}
        # Without -e, as in the shell of a person who pastes the block.
        command = ["sh", "-u", "-c", block_of(heading)]
        done = subprocess.run(command, cwd=self.folder, env=environment, check=False)
        calls = log.read_text().splitlines()
        assert (done.returncode == 0) == succeeds, calls
        for call in calls:
            self._check(call)
        return calls

    def _check(self, call: str) -> None:
        nowhere = "unix:///nowhere"
        arguments = call.split()[1:]
        result = compose(self.env_file, *arguments, folder=self.folder, DOCKER_HOST=nowhere)
        assert result.returncode == 0 or nowhere in result.stderr, f"{call}: {result.stderr}"


@pytest.fixture
def machine(tmp_path: Path, server: EmbeddedPostgres) -> Machine:
    return Machine(tmp_path, server)


def test_a_backup_is_restored_with_every_row_and_file(
    machine: Machine, server: EmbeddedPostgres, database: str
) -> None:
    _add_a_row(database)
    folder = machine.folder / "store" / "filerldb2"
    folder.mkdir()
    (folder / "CURRENT").write_bytes(bytes(range(256)))

    calls = machine.follow("## Back up")
    dump, stop, copy, start = calls
    assert " postgres pg_dump " in dump
    assert (stop, start) == ("compose stop s3", "compose start s3")
    assert " tar s3 -C /data -czf -" in copy
    for name in ("nayer.dump", "nayer-s3.tar.gz"):
        assert (machine.folder / name).stat().st_mode & 0o077 == 0, name

    _empty(server)
    (machine.folder / "empty").mkdir()
    calls = machine.follow("## Restore", store="empty")
    assert calls[0] == "compose up --detach --wait postgres"
    assert calls[-1] == "compose up --detach --wait"
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT cache_key, key, sha256, bytes, job_id FROM bank").fetchone()
        assert row == ROW
        triggers = connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = 'job_step'").fetchone()
        assert triggers == (1,)
    assert (machine.folder / "empty" / "filerldb2" / "CURRENT").read_bytes() == bytes(range(256))


def test_an_upgrade_migrates_first_and_replaces_the_workers_last(machine: Machine) -> None:
    assert machine.follow("## Upgrade") == [
        "compose build",
        "compose run --rm --no-deps migrate",
        "compose up --detach --wait --no-deps api",
        "compose config --services",
        "compose stop inspect distill",
        "compose up --detach --wait",
    ]


def test_an_upgrade_stops_the_workers_of_all_gpus(machine: Machine) -> None:
    (machine.folder / "docker-compose.override.yml").write_text(block_of("## Scale", "yaml"))
    write_env(machine.folder, COMPOSE_PROFILES="gpu")
    [stop] = [call for call in machine.follow("## Upgrade") if call.startswith("compose stop")]
    assert set(stop.split()[2:]) == {"inspect", "distill", "distill-gpu", "distill-gpu-1"}


def test_after_a_failed_migration_an_upgrade_replaces_nothing(machine: Machine) -> None:
    migration = "compose run --rm --no-deps migrate"
    assert machine.follow("## Upgrade", failing=migration, succeeds=False) == ["compose build", migration]


def test_a_restore_into_a_database_with_tables_fails_and_changes_nothing(
    machine: Machine, database: str
) -> None:
    machine.follow("## Back up")
    _add_a_row(database)
    calls = machine.follow("## Restore", succeeds=False)
    assert " postgres pg_restore " in calls[-1], "files of a store in use were overwritten"
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM bank").fetchone() == (1,)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="uses openssl, which is not on this machine")
def test_a_password_is_changed_in_the_database_and_then_in_env(
    machine: Machine, server: EmbeddedPostgres, database: str
) -> None:
    calls = machine.follow("## Change a password")
    assert calls[:2] == ["compose config --services", "compose stop inspect distill"]
    assert calls[-1] == "compose up --detach --wait"
    match = re.search("^POSTGRES_PASSWORD=(.*)$", machine.env_file.read_text(), flags=re.MULTILINE)
    assert match is not None
    new = f"postgresql://nayer:{match[1]}@127.0.0.1:{server.port}"
    try:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(database)
        with psycopg.connect(f"{new}/nayer") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        statement = sql.SQL("ALTER USER nayer PASSWORD {}").format(server.password())
        with psycopg.connect(f"{new}/postgres", autocommit=True) as connection:
            connection.execute(statement)


def test_a_database_that_is_missing_is_not_healthy(
    machine: Machine, server: EmbeddedPostgres, database: str
) -> None:
    # Half a first start leaves a server without it; pg_isready calls that ready.
    kind, *command = services(machine.env_file)["postgres"]["healthcheck"]["test"]
    assert kind == "CMD"

    def probe() -> int:
        return subprocess.run(command, env=machine.environment, capture_output=True, check=False).returncode

    assert probe() == 0
    _drop(server)
    assert probe() != 0


def _add_a_row(database: str) -> None:
    with psycopg.connect(database) as connection:
        statement = "INSERT INTO bank (cache_key, key, sha256, bytes, job_id) VALUES (%s, %s, %s, %s, %s)"
        connection.execute(statement, ROW)


def _empty(server: EmbeddedPostgres) -> None:
    _drop(server)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE nayer")


def _drop(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS nayer WITH (FORCE)")
