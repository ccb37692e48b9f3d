"""PostgreSQL and Valkey as child processes: their data survive stops, crashes and kills."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from cli.local.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey
from cli.local.server_process import EmbeddedServer

SERVERS = [EmbeddedPostgres, EmbeddedValkey]


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    # Without fsync PostgreSQL still keeps what a killed server had committed; Valkey keeps nothing.
    server = request.param(tmp_path / request.param.name, durable=request.param is EmbeddedValkey)
    server.start()
    yield server
    server.stop()


def write_number(server: EmbeddedServer) -> None:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE entry AS SELECT 42 AS number")
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("entry", "42")
            client.execute_command("WAITAOF", 1, 0, 5000)  # everysec: wait until it is on disk


def read_number(server: EmbeddedServer) -> int:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(server.url) as connection:
            row = connection.execute("SELECT number FROM entry").fetchone()
            assert row is not None
            return int(row[0])
    with redis.Redis.from_url(server.url) as client:
        return int(client.get("entry"))


def test_data_are_kept_over_stops_and_crashes(server: EmbeddedServer) -> None:
    write_number(server)
    url = server.url
    for end in (server.stop, server.kill):
        end()
        assert not server.alive()
        server.start()
        assert (server.url, read_number(server)) == (url, 42)


def test_a_second_start_in_the_folder_ends_the_orphan_and_has_its_data(server: EmbeddedServer) -> None:
    write_number(server)
    again = type(server)(server.folder, durable=server.durable)
    again.start()
    try:
        assert not server.alive()
        assert read_number(again) == 42
    finally:
        again.stop()


def test_a_process_with_the_id_of_a_dead_server_is_not_ended(server: EmbeddedServer) -> None:
    write_number(server)
    server.kill()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        numbers = server._pid_file().read_text().splitlines()
        server._pid_file().write_text("\n".join([str(stranger.pid), *numbers[1:]]) + "\n")
        server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert read_number(server) == 42


def test_a_wrong_password_is_refused_and_the_right_one_is_private(server: EmbeddedServer) -> None:
    wrong = server.url.replace(server.password(), "guessed")
    if isinstance(server, EmbeddedPostgres):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong)
    else:
        with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    assert stat.S_IMODE((server.folder / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert server.pid is not None
    assert server.password() not in " ".join(psutil.Process(server.pid).cmdline())


def test_a_server_has_its_own_session(server: EmbeddedServer) -> None:
    assert server.pid is not None
    assert os.getsid(server.pid) != os.getsid(0)


def test_a_server_with_open_connections_stops_in_order(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    with psycopg.connect(server.url):
        server.stop()
    assert server._process is not None
    assert server._process.returncode == 0, "it stopped in order, not by force"
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent dies")
@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)
def test_a_server_ends_with_its_killed_parent(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; import cli.local.embedded as e;"
        f"s = e.{kind.__name__}(Path(sys.argv[1]), durable=False); s.start();"
        "print(s.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / kind.name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_start_that_was_interrupted_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data.part").mkdir(parents=True)
    (tmp_path / "postgres" / "data.part" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    server.stop()
    assert not (tmp_path / "postgres" / "data.part").exists()


def test_data_of_another_version_are_refused_with_the_message_of_the_server(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    server.stop()
    (server.folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedServerError, match="version"):
        server.start()
    assert not server.alive()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that others cannot enter")
def test_root_runs_it_in_a_folder_that_only_root_can_enter(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    server = EmbeddedPostgres(tmp_path / "closed" / "postgres", durable=False)
    server.start()
    try:
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().effective != 0
        write_number(server)
        server.kill()
        server.start()
        assert read_number(server) == 42
    finally:
        server.stop()


def test_a_program_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cli.local.embedded as embedded

    monkeypatch.setenv("PATH", str(tmp_path))
    from_wheel = embedded._valkey_binary()
    shutil.copy(from_wheel, tmp_path / "redis-server")
    assert embedded._valkey_binary() == tmp_path / "redis-server"
