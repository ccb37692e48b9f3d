"""A server as a child process: it is started and awaited, stops in order, and leaves no orphan.

    EmbeddedServer   common to PostgreSQL, Valkey (`cli.local.embedded`) and the tests' object store

A server has its own session, so that Ctrl-C reaches only the parent, which then stops everything in order.
On Linux it also ends when the parent is killed.
"""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import IO

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
LOG_BYTES = 10 * 2**20

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedServerError(Exception):
    """A server cannot be started here; the message says why and what to do."""


class EmbeddedServer(ABC):
    """A server in a folder: start, stop, start again on the same port with the same data.

    Args:
        folder: of its data, password and log; created where it does not exist.
        durable: whether an acknowledged write survives a power cut; tests do without.
    """

    name: str
    stop_signals: tuple[signal.Signals, ...]

    def __init__(self, folder: Path, *, durable: bool = True):
        self.folder = folder.resolve()
        self.durable = durable
        self.log = self.folder / f"{self.name}.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Address, user and password; the same after every restart of this object."""

    @property
    def pid(self) -> int | None:
        """Id of its process; `None` before the first start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and wait until it answers; harmless while it runs.

        Raises:
            EmbeddedServerError: it cannot run here, or does not answer in time.
        """
        if self.alive():
            return
        self._prepare()
        self._end_orphan()
        port_is_chosen_now = not self.port
        deadline = time.monotonic() + READY_SECONDS
        while True:
            if port_is_chosen_now:
                self.port = free_port()
            self._process = self._spawn()
            if self._wait_until_ready(deadline):
                return
            # Another program took the port, or backends of a killed server have not left yet.
            if time.monotonic() > deadline or not self._may_try_again():
                self.stop()
                raise EmbeddedServerError(
                    f"{self.name} does not start; {self.log} ends with: {self.last_words()}"
                )
            time.sleep(0.1)

    def alive(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop it in order, by force when that takes longer than `STOP_SECONDS`; harmless when it is down."""
        for signum in (*self.stop_signals, signal.SIGKILL):
            if self._process is None or self._process.poll() is not None:
                return
            self._process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it at once, as a crash would; `start` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @abstractmethod
    def _pid_file(self) -> Path: ...

    def _wait_until_ready(self, deadline: float) -> bool:
        while self.alive() and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.02)
        return False

    def _may_try_again(self) -> bool:
        words = self.last_words(lines=20)
        return not self.alive() and any(
            hint in words for hint in ("in use", "already exists", "starting up", "shutting down")
        )

    def last_words(self, lines: int = 3) -> str:
        """Read the end of the log, for a message to a person."""
        if not self.log.exists():
            return "(nothing)"
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def open_log(self) -> IO[bytes]:
        """Open the log for the server to append to; a log over `LOG_BYTES` is emptied first."""
        too_long = self.log.exists() and self.log.stat().st_size > LOG_BYTES
        return self.log.open("wb" if too_long else "ab")

    def password(self) -> str:
        """Return the password of its only user; created at the first start and stored in the folder."""
        path = self.folder / "password"
        if not path.exists():
            part = path.with_suffix(".part")
            part.touch(mode=0o600)
            part.write_text(secrets.token_urlsafe(24))
            shutil.chown(part, self.folder.stat().st_uid, self.folder.stat().st_gid)
            part.replace(path)
        return path.read_text()

    def _end_orphan(self) -> None:
        """End a server that outlived its parent; another process may have the id of one that did not."""
        if sys.platform != "linux" or not self._pid_file().exists():
            return
        first_line = self._pid_file().read_text().partition("\n")[0].strip()
        pid = int(first_line) if first_line.isdigit() else 0
        deadline = time.monotonic() + STOP_SECONDS
        while pid and _works_in(pid, self._pid_file().parent):
            os.kill(pid, self.stop_signals[0] if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.1)
        self._pid_file().unlink(missing_ok=True)


def die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn`: the child gets `signum` when this process dies (Linux)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # the parent died before the call
            os.kill(os.getpid(), signum)

    return in_child


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a process lives and its working directory is `folder`, as both servers' is."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder
    except OSError:
        return False
