"""`nayer serve` as a process of its own, for tests of the command line and the examples."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

STOP_SECONDS = 60


@dataclass
class Serving:
    """A running service.

    Args:
        process: the supervisor.
        url: where it answers.
        data_dir: its data folder.
    """

    process: subprocess.Popen[str]
    url: str
    data_dir: Path

    def children(self) -> dict[str, psutil.Process]:
        """Its child processes, by a word in their command line."""
        words = {"-m api ": "api", "worker.upkeep": "upkeep", "valkey": "valkey", "postgres": "postgres"}
        words |= {"inspect-0": "inspect", "distill-0": "distill"}
        by_name: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it died, or is a zombie
                command = " ".join(child.cmdline())
                by_name |= {name: child for word, name in words.items() if word in command}
        return by_name

    def everything(self) -> list[psutil.Process]:
        """The supervisor and all that descend from it."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(signum)
        code = self.process.wait(STOP_SECONDS)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        return code


def start_serving(data_dir: Path, *options: str) -> Serving:
    """Start a service on a free port and wait until it answers."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "serve.stderr").open("a") as errors:
        process = subprocess.Popen(
            serve_command(data_dir, *options),
            env=serve_environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (data_dir / "serve.stderr").read_text()
    return Serving(process, json.loads(line)["url"], data_dir)


def serve_command(data_dir: Path, *options: str) -> list[str]:
    """The command line of a service on a free port."""
    return [
        sys.executable,
        "-m",
        "cli.main",
        "serve",
        "--json",
        "--port",
        "0",
        "--data-dir",
        str(data_dir),
        *options,
    ]


def serve_environment() -> dict[str, str]:
    """An environment that names no other service; one thread a process, the machine is shared."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NAYER_")}
    return variables | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
