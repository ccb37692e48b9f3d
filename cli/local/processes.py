"""Child processes of `nayer serve`: started, watched, restarted when they die, stopped in order."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cli.local.server_process import EmbeddedServerError, die_with_parent

LOG_BYTES = 10 << 20  # a log longer than this is set aside at the next start
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
STEADY_SECONDS = 60.0  # a service that lived so long starts again at the first pause


class Service(Protocol):
    """Something that runs until it is stopped."""

    @property
    def name(self) -> str:
        """Its name, for people."""

    def start(self) -> None:
        """Start it; returns before it answers."""

    def alive(self) -> bool:
        """Whether its process lives."""

    def stop(self) -> None:
        """Stop it and all it started; harmless when it does not run."""

    def kill(self) -> None:
        """End it at once."""


class Program:
    """One child process with its own log and its own process group.

    On Linux it is killed when this process ends without stopping it.

    Args:
        name: for people.
        command: the program and its arguments.
        environment: all of its environment.
        log: file that stdout and stderr are appended to.
        grace_seconds: from SIGTERM to SIGKILL.
        pass_fds: file descriptors it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        grace_seconds: float = 10.0,
        pass_fds: Sequence[int] = (),
    ):
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._grace_seconds = grace_seconds
        self._pass_fds = tuple(pass_fds)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # SIGKILL: a worker asked politely would wait for a broker that died too. Its lease
                # brings the job back. A function before the program is safe with one thread.
                preexec_fn=die_with_parent(signal.SIGKILL),
                pass_fds=self._pass_fds,
            )

    def alive(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout_seconds: float) -> int:
        """Wait for a process that ends by itself; returns its exit code.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        assert self._process is not None  # noqa: S101 - wait() comes after start()
        return self._process.wait(timeout_seconds)

    def ask_to_stop(self) -> None:
        """Send SIGTERM; `stop` waits for the end."""
        if self.alive() and self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Stop the process, then the rest of its group."""
        if self._process is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace_seconds)
        self.kill()

    def kill(self) -> None:
        """End the process and its group at once."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class ServiceGroup:
    """The services of one machine: starts them, restarts those that die, stops them in reverse order.

    The pause before a restart doubles each time a service dies within `STEADY_SECONDS`.

    Args:
        on_restart: called with one sentence when a service died, and when it is restarted.
    """

    def __init__(self, on_restart: Callable[[str], None]):
        self._on_restart = on_restart
        self._stages: list[tuple[Service, ...]] = []
        self._deaths: dict[str, int] = {}
        self._started_at: dict[str, float] = {}
        self._restart_at: dict[str, float] = {}

    def start(self, *services: Service) -> None:
        """Start services and keep them running; those started together stop together."""
        self._stages.append(services)
        for service in services:
            self._started_at[service.name] = time.monotonic()
            service.start()

    def tend(self) -> None:
        """Restart the services that died, once their pause is over."""
        for service in itertools.chain.from_iterable(self._stages):
            if service.alive():
                continue
            now = time.monotonic()
            if service.name not in self._restart_at:
                self._restart_at[service.name] = now + self._pause_seconds(service.name, now)
            if now >= self._restart_at[service.name]:
                self._restart(service, now)

    def _restart(self, service: Service, now: float) -> None:
        del self._restart_at[service.name]
        self._started_at[service.name] = now
        try:
            service.start()
        except (EmbeddedServerError, OSError) as error:
            self._on_restart(f"{service.name} could not be started: {error}")
        else:
            self._on_restart(f"{service.name} was started again")

    def stop(self) -> None:
        """Stop everything, the last started first; on an interrupt, at once."""
        stages = self._stages[::-1]
        self._stages = []
        try:
            for stage in stages:
                for service in stage:
                    if isinstance(service, Program):  # together: each may take its time
                        service.ask_to_stop()
                for service in stage:
                    service.stop()
        except KeyboardInterrupt:
            for service in itertools.chain.from_iterable(stages):
                service.kill()

    def _pause_seconds(self, name: str, now: float) -> float:
        steady = now - self._started_at[name] > STEADY_SECONDS
        self._deaths[name] = 1 if steady else self._deaths.get(name, 0) + 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (self._deaths[name] - 1), LONGEST_PAUSE_SECONDS)
        self._on_restart(f"{name} died; it is started again in {pause:g} s")
        return pause
