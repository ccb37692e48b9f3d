"""The commands of docker-compose.yml and the Dockerfile, run unchanged against real servers.

Only addresses and folders are replaced; a container gets exactly this environment otherwise.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey, _valkey_binary
from cli.local.server_process import free_port
from jobs.errors import ServiceUnavailable
from jobs.files.store import Storage
from tests.deployment.recipes import PROGRAMS, services, write_env
from tests.support.seaweedfs import EmbeddedSeaweed, port_with_grpc

PATIENCE_SECONDS = 60
API_PORT, S3_PORT = "8000", "8333"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return services(write_env(tmp_path_factory.mktemp("compose")))


@pytest.fixture(scope="module")
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database without tables, as the container of PostgreSQL creates it."""
    name = sql.Identifier(f"deployed_{os.getpid()}")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    yield postgres.url_of(f"deployed_{os.getpid()}")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes `import torch` fail, as in the api image."""
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "torch.py").write_text("raise ImportError('the api image has no torch')\n")
    return folder


@pytest.fixture(scope="module")
def places(
    empty_database: str,
    valkey: EmbeddedValkey,
    seaweedfs: EmbeddedSeaweed,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Addresses and folders of this machine by those of the compose file."""
    home = tmp_path_factory.mktemp("home")
    (home / "scratch").mkdir(mode=0o700)
    return {
        "postgresql://nayer:postgrespassword0123456789@postgres:5432/nayer": empty_database,
        "redis://:valkeypassword0123456789@valkey:6379/0": valkey.url,
        "s3://nayer": seaweedfs.url,
        "http://s3:8333": seaweedfs.options["endpoint"],
        "s3accesskey0123456789": seaweedfs.options["access_key_id"],
        "s3secretkey0123456789": seaweedfs.options["secret_access_key"],
        "/var/lib/nayer": str(home),
        API_PORT: str(free_port()),
    }


@pytest.fixture(scope="module")
def migrated(recipes: dict[str, dict[str, Any]], places: Mapping[str, str], no_torch: Path) -> None:
    command, environment = _as_here(recipes["migrate"], places)
    subprocess.run(command, env=environment | {"PYTHONPATH": str(no_torch)}, cwd="/", check=True)


@pytest.fixture(scope="module")
def running_services(
    recipes: dict[str, dict[str, Any]], places: Mapping[str, str], migrated: None, no_torch: Path
) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """All services, started at once as by Compose; each must run until SIGTERM, and then end."""
    with contextlib.ExitStack() as undo:
        processes = {}
        for name in ("api", "upkeep", "inspect", "distill"):
            command, environment = _as_here(recipes[name], places)
            if recipes[name]["build"]["target"] == "api":
                environment["PYTHONPATH"] = str(no_torch)
            processes[name] = undo.enter_context(_process(command, environment))
        yield processes
        for name, process in processes.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}"
            process.terminate()  # all at once, as each may need a while


@pytest.mark.parametrize("name", ["api", "inspect", "distill"])
def test_a_service_becomes_healthy(
    recipes: dict[str, dict[str, Any]],
    places: Mapping[str, str],
    running_services: dict[str, "subprocess.Popen[bytes]"],
    name: str,
) -> None:
    kind, *test = recipes[name]["healthcheck"]["test"]
    assert kind == "CMD"
    _, environment = _as_here(recipes[name], places)
    _until_it_succeeds([word.replace(API_PORT, places[API_PORT]) for word in test], environment)
    assert running_services[name].poll() is None


def test_the_upkeep_runs(running_services: dict[str, "subprocess.Popen[bytes]"]) -> None:
    assert running_services["upkeep"].poll() is None


def test_a_worker_listens_to_the_queue_it_is_named_for(recipes: dict[str, dict[str, Any]]) -> None:
    for queue in ("inspect", "distill"):
        command = recipes[queue]["command"]
        assert command[command.index("-Q") + 1] == queue
        assert command[command.index("-n") + 1] == f"{queue}@%h"


def test_a_gpu_changes_nothing_but_the_device(recipes: dict[str, dict[str, Any]]) -> None:
    cpu, gpu = recipes["distill"], recipes["distill-gpu"]
    assert cpu["command"] == gpu["command"]
    assert cpu["healthcheck"] == gpu["healthcheck"]
    differing = {k for k in cpu["environment"] if cpu["environment"][k] != gpu["environment"][k]}
    assert differing == {"NAYER_DEVICE"}


def test_an_unreachable_hub_is_reported_at_once(
    recipes: dict[str, dict[str, Any]], places: Mapping[str, str]
) -> None:
    command, environment = _as_here(recipes["fetch-encoders"], places)
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}  # where nobody listens
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["code"]) == ("failed", "text_encoder_unavailable")
    assert "http://127.0.0.1:9 does not answer" in last["message"]


def test_the_broker_requires_its_password(recipes: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    port = free_port()
    places = {"/tmp/valkey.conf": str(tmp_path / "valkey.conf"), "/data": str(tmp_path)}
    command, environment = _as_here(recipes["valkey"], places)
    command[-1] += f" --port {port}"
    environment["PATH"] = f"{_valkey_binary().parent}:{environment['PATH']}"
    url = f"redis://:{environment['VALKEY_PASSWORD']}@127.0.0.1:{port}/0"
    with _process(command, environment):
        assert _answers(url)
        assert not _answers(f"redis://:another@127.0.0.1:{port}/0", seconds=0)


def test_the_store_accepts_only_its_own_key(store: dict[str, str]) -> None:
    assert Storage.open("s3://nayer", store).check() > 0
    with pytest.raises(ServiceUnavailable):
        Storage.open("s3://nayer", {**store, "secret_access_key": "another"}).check()


def test_the_store_keeps_its_data_and_index_in_its_volume(store: dict[str, str], store_volume: Path) -> None:
    assert Storage.open("s3://nayer", store).check() > 0
    assert list((store_volume / "filerldb2").rglob("CURRENT")), "the index of all objects is not there"
    assert list(store_volume.glob("*.dat")), "no volume with what is in the objects is there"
    assert not (store_volume.parent / "elsewhere").exists()


@pytest.fixture(scope="module")
def store_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in place of the store's volume."""
    return tmp_path_factory.mktemp("store") / "data"


@pytest.fixture(scope="module")
def store(recipes: dict[str, dict[str, Any]], store_volume: Path) -> Iterator[dict[str, str]]:
    """The options to reach the store, which is started as in the compose file.

    Beside it is a filer.toml that names another folder for the index. The published image has such a file,
    and it takes precedence over the argument -dir.
    """
    store_volume.mkdir()
    settings = store_volume.parent / "home" / ".seaweedfs"
    settings.mkdir(parents=True)
    elsewhere = store_volume.parent / "elsewhere"
    (settings / "filer.toml").write_text(f'[leveldb2]\nenabled = true\ndir = "{elsewhere}"\n')
    recipe = recipes["s3"]
    [volume] = recipe["volumes"]
    ports = {name: str(port_with_grpc()) for name in ("master.port", "volume.port", "filer.port")}
    ports |= {name: str(free_port()) for name in ("s3.port", "s3.port.grpc")}
    command, environment = _as_here(recipe, {volume["target"]: str(store_volume), S3_PORT: ports["s3.port"]})
    environment["HOME"] = str(settings.parent)
    command = [*recipe["entrypoint"], *command]
    # Its own ports may be taken on this machine; a later argument wins.
    command += [f"-{name}={port}" for name, port in ports.items()]
    test = recipe["healthcheck"]["test"]
    healthy = test[1].replace(S3_PORT, ports["s3.port"]).replace("9333", ports["master.port"])
    with _process(command, environment, stop=signal.SIGKILL):
        _until_it_succeeds(["sh", "-c", healthy], environment)
        yield {
            "endpoint": f"http://127.0.0.1:{ports['s3.port']}",
            "region": "us-east-1",
            "access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        }


def _as_here(recipe: Mapping[str, Any], places: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command and environment of a service, with addresses and folders replaced by `places`."""
    there = re.compile("|".join(map(re.escape, places)))

    def here(text: str) -> str:
        return there.sub(lambda match: places[match[0]], text)  # once: a place may look like another

    environment = {name: here(str(value)) for name, value in (recipe["environment"] or {}).items()}
    environment["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"
    return [here(word) for word in recipe["command"]], environment | {"OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str], stop: signal.Signals = signal.SIGTERM
) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, env=environment, cwd="/", start_new_session=True) as process:
        try:
            yield process
            process.send_signal(stop)
            assert process.wait(30) in (0, -stop), f"{shlex.join(command)}: {process.returncode}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _until_it_succeeds(test: Sequence[str], environment: Mapping[str, str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = subprocess.run(test, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, f"{shlex.join(test)}: {done.stdout}{done.stderr}"
        time.sleep(0.2)


def _answers(url: str, seconds: float = 10) -> bool:
    import redis

    deadline = time.monotonic() + seconds
    while True:
        try:
            with redis.Redis.from_url(url) as client:
                return bool(client.ping())
        except (redis.AuthenticationError, redis.ConnectionError):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
