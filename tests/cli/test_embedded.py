"""PostgreSQL and Valkey as children: found again after every way of going away."""

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
    started = request.param(tmp_path / request.param.name, durable=request.param is EmbeddedValkey)
    started.start()
    yield started
    started.stop()


def write(server: EmbeddedServer) -> None:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "42")
            client.execute_command("WAITAOF", 1, 0, 5000)  # everysec: wait until it is on disk


def read(server: EmbeddedServer) -> int:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(server.url) as connection:
            row = connection.execute("SELECT number FROM kept").fetchone()
            assert row is not None
            return int(row[0])
    with redis.Redis.from_url(server.url) as client:
        return int(client.get("kept"))


def test_data_are_kept_over_stops_and_crashes(server: EmbeddedServer) -> None:
    write(server)
    url = server.url
    for go_away in (server.stop, server.kill):
        go_away()
        assert not server.alive()
        server.start()
        assert (server.url, read(server)) == (url, 42)


def test_another_start_in_the_folder_ends_the_orphan_and_finds_the_data(server: EmbeddedServer) -> None:
    write(server)
    again = type(server)(server.folder, durable=server.durable)
    again.start()
    try:
        assert not server.alive()
        assert read(again) == 42
    finally:
        again.stop()


def test_the_number_of_a_dead_server_may_be_a_strangers(server: EmbeddedServer) -> None:
    write(server)
    server.kill()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        numbers = server._pid_file().read_text().splitlines()
        server._pid_file().write_text("\n".join([str(stranger.pid), *numbers[1:]]) + "\n")
        server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert read(server) == 42


def test_nobody_is_let_in_without_the_password(server: EmbeddedServer) -> None:
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


def test_ctrl_c_does_not_reach_it(server: EmbeddedServer) -> None:
    assert server.pid is not None
    assert os.getsid(server.pid) != os.getsid(0)


def test_stopping_is_quick_while_clients_are_there(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    with psycopg.connect(server.url):
        server.stop()
    assert server._process is not None
    assert server._process.returncode == 0, "it stopped in order, not by force"
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)
def test_it_does_not_outlive_a_killed_parent(kind: type[EmbeddedServer], tmp_path: Path) -> None:
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


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_start_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data.part").mkdir(parents=True)
    (tmp_path / "postgres" / "data.part" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    server.stop()
    assert not (tmp_path / "postgres" / "data.part").exists()


def test_data_of_another_version_are_refused_with_the_servers_own_words(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    server.stop()
    (server.folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedServerError, match="version"):
        server.start()
    assert not server.alive()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a folder that others cannot pass")
def test_root_runs_it_behind_folders_that_nobody_else_can_pass(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    server = EmbeddedPostgres(tmp_path / "closed" / "postgres", durable=False)
    server.start()
    try:
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().effective != 0
        write(server)
        server.kill()
        server.start()
        assert read(server) == 42
    finally:
        server.stop()


def test_a_program_on_the_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cli.local.embedded as embedded

    monkeypatch.setenv("PATH", str(tmp_path))
    from_wheel = embedded._valkey_binary()
    shutil.copy(from_wheel, tmp_path / "redis-server")
    assert embedded._valkey_binary() == tmp_path / "redis-server"
