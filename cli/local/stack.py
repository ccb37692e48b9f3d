"""The parts of the service on one machine, in the order of their start.

PostgreSQL and Valkey (unless the environment names others), the migrations, the API, the workers
and the upkeep: each is a child process with its own log in `<data folder>/logs`.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from cli.errors import ServeError
from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from cli.local.processes import Program, ServiceGroup
from cli.local.server_process import EmbeddedServer, EmbeddedServerError
from jobs.settings import Settings

MIGRATION_SECONDS = 120.0
STREAMS_SECONDS = 3  # what open event streams get to end, when the API stops
STOP_MARGIN_SECONDS = 10.0  # over what a worker gives its child for a checkpoint


def start_stack(group: ServiceGroup, home: Path, listener: socket.socket, *, insecure: bool = False) -> None:
    """Start every part of the service; returns before it answers.

    Args:
        group: keeps the parts running and stops them.
        home: the data folder.
        listener: the socket that the API answers on.
        insecure: whether the API may answer without a key where other machines reach it.

    Raises:
        ServeError: a part cannot be started.
    """
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"NAYER_DATA_DIR": str(home)}
    for server, variable in (
        (EmbeddedPostgres(home / "postgres"), "NAYER_DATABASE_URL"),
        (EmbeddedValkey(home / "valkey"), "NAYER_REDIS_URL"),
    ):
        if not environment.get(variable):
            server.log = logs / f"{server.name}.log"
            _start_server(group, server)
            environment[variable] = server.url
    if not environment.get("NAYER_STORAGE_URL"):
        (home / "files").mkdir(exist_ok=True)
        environment["NAYER_STORAGE_URL"] = (home / "files").as_uri()
    _migrate(environment, logs / "migrations.log")
    group.start(_api(environment, logs, listener, insecure))
    group.start(*_workers(environment, logs))


def _start_server(group: ServiceGroup, server: EmbeddedServer) -> None:
    try:
        group.start(server)
    except EmbeddedServerError as error:
        raise ServeError(f"{server.name}_failed", str(error)) from error


def _migrate(environment: dict[str, str], log: Path) -> None:
    program = Program("migrations", [sys.executable, "-m", "migrations"], environment, log)
    program.start()
    try:
        code = program.wait(MIGRATION_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()
        code = -1
    if code != 0:
        raise ServeError("migrations_failed", "The database could not be migrated.", f"See {log}.")


def _api(environment: dict[str, str], logs: Path, listener: socket.socket, insecure: bool) -> Program:
    command = [sys.executable, "-m", "api", "--fd", str(listener.fileno())]
    command += ["--stop-seconds", str(STREAMS_SECONDS), *(["--insecure"] if insecure else [])]
    return Program("api", command, environment, logs / "api.log", pass_fds=[listener.fileno()])


def _workers(environment: dict[str, str], logs: Path) -> list[Program]:
    environment = _thread_limits() | environment
    settings = _settings(environment)
    grace = settings.drain_seconds + STOP_MARGIN_SECONDS
    workers = [Program("upkeep", [sys.executable, "-m", "worker.upkeep"], environment, logs / "upkeep.log")]
    workers.append(_celery("inspect", 2, environment, logs, grace))
    for index, devices in enumerate(_shares(_gpus(), settings.processes_per_job)):
        its_own = environment | ({"CUDA_VISIBLE_DEVICES": devices} if devices else {})
        workers.append(_celery("distill", 1, its_own, logs, grace, index))
    return workers


def _thread_limits() -> dict[str, str]:
    """Limit torch's threads beside the rest of the service, unless the environment sets other values.

    The threads wait for each other in busy loops, so one thread without a core delays all:
    on two cores with other work a student step took 0.41 s, with PASSIVE 0.06 to 0.15 s, and with
    one thread always 0.074 s.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))}


def _settings(environment: Mapping[str, str]) -> Settings:
    try:
        return Settings(
            database_url=environment["NAYER_DATABASE_URL"],
            redis_url=environment["NAYER_REDIS_URL"],
            storage_url=environment["NAYER_STORAGE_URL"],
        )
    except ValidationError as error:
        faults = "; ".join(
            f"NAYER_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise ServeError("settings_invalid", f"{faults}.", "Correct these environment variables.") from error


def _celery(
    queue: str, slots: int, environment: dict[str, str], logs: Path, grace: float, index: int = 0
) -> Program:
    name = f"{queue}-{index}"
    command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"]
    command += ["-Q", queue, "-P", "threads", "-c", str(slots), "-n", f"{name}@%h", "-l", "INFO"]
    command += ["--without-gossip", "--without-mingle"]
    return Program(name, command, environment, logs / f"{name}.log", grace_seconds=grace)


def _shares(gpus: Sequence[str], processes: int) -> Sequence[str]:
    """Divide the GPUs among distillation workers, one for each process of a job; "" is a worker on the CPU.

    A rest that is too small for one more job stays idle.
    """
    if not gpus:
        return [""]
    if len(gpus) < processes:
        message = f"NAYER_PROCESSES_PER_JOB is {processes}, and there are {len(gpus)} GPUs."
        raise ServeError("settings_invalid", message, "Lower it, or set NAYER_DEVICE=cpu.")
    return [",".join(gpus[at : at + processes]) for at in range(0, len(gpus) - processes + 1, processes)]


def _gpus() -> Sequence[str]:
    """Name the GPUs that distillation may use; none where it is to run on the CPU."""
    if os.environ.get("NAYER_DEVICE") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    result = subprocess.run(
        [program, "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return result.stdout.split()
