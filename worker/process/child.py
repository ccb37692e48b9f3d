"""Starts a core process, reads its output, and ends it with its process group.

The child has a session of its own, a bare environment, the limits of `launcher.py`, and dies with
its supervisor. Its stdout is JSON lines of `nayer_core.contract.events`; anything else there is
dropped. Its stderr goes to the log, never to a client.
"""

import collections
import dataclasses
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from nayer_core.contract.events import Event, parse_event
from worker.logs import thread_of_job

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 20  # an inspection report of 20,000 tensors is far below
MAX_BUFFERED_EVENTS = 20_000  # over an hour of a run without the database; then the child waits
STDERR_TAIL_BYTES = 16 << 10
_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a child; `None` means no limit but the machine's.

    Args:
        network: False puts it into an empty network namespace, where the machine allows that.
        memory_bytes: address space.
        file_bytes: size of the largest file it may write.
    """

    network: bool = False
    memory_bytes: int | None = None
    file_bytes: int | None = None


class Child:
    """One running core process.

    Start it from the thread that will wait for it: the kernel ends the child when that *thread*
    ends. So the children of a killed supervisor end with it.

    Args:
        command: program and arguments; the program as an absolute path.
        folder: working folder.
        environment: the child's whole environment.
        limits: the limits of the child.
    """

    def __init__(
        self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], limits: Limits
    ):
        confinement = {k: v for k, v in dataclasses.asdict(limits).items() if v is not None}
        confinement["parent"] = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(confinement), *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101  both are pipes, as requested above
        assert self._process.stderr is not None  # noqa: S101  as above, both are pipes
        self.pid = self._process.pid
        self.events_seen = 0
        self._events: collections.deque[Event] = collections.deque()
        self._room = threading.Condition()
        self._is_over = False
        self._gaps: collections.deque[float] = collections.deque(maxlen=100)
        self._stderr = bytearray()
        self._readers = [
            _start_thread(self._read_events, self._process.stdout),
            _start_thread(self._read_log, self._process.stderr),
        ]

    def take_events(self, most: int) -> list[Event]:
        """Remove and return up to `most` events that have arrived, oldest first."""
        with self._room:
            events = [self._events.popleft() for _ in range(min(most, len(self._events)))]
            self._room.notify_all()
        return events

    def has_events(self) -> bool:
        """Whether events wait to be taken."""
        return len(self._events) > 0

    def running(self) -> bool:
        """Whether the process still runs. Does not reap it, so that its group can still be killed."""
        if self._process.returncode is not None:
            return False
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is None

    def is_blocked(self) -> bool:
        """Whether the child waits for us, because events arrive faster than they are taken."""
        return len(self._events) >= MAX_BUFFERED_EVENTS

    def median_gap(self) -> float:
        """Median time between recent events in seconds; 0 before the first event."""
        gaps = list(self._gaps)
        return statistics.median(gaps) if gaps else 0.0

    def stderr_tail(self) -> str:
        """The end of its stderr, for the log."""
        return self._stderr.decode(errors="replace").strip()

    def request_stop(self) -> None:
        """Send SIGTERM: save the state and exit with code 3."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)

    def end(self) -> int:
        """Kill the process and its whole group, reap it, and read the rest of its output.

        Returns:
            Its exit code; minus the signal's number where a signal ended it.
        """
        if self._process.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)  # an exited leader still holds the group's number
            self._process.wait()
        with self._room:
            self._is_over = True
            self._room.notify_all()
        for reader in self._readers:
            reader.join(timeout=5)  # a process that left the group may still hold the pipe
        return self._process.returncode

    def _read_events(self, stdout: IO[bytes]) -> None:
        last = time.monotonic()
        with stdout:
            while line := stdout.readline(MAX_LINE_BYTES):
                whole = line.endswith(b"\n")
                while line and not line.endswith(b"\n"):  # the rest of an over-long line
                    line = stdout.readline(MAX_LINE_BYTES)
                event = _event_of(line) if whole else None
                if event is None:
                    continue
                with self._room:
                    self._room.wait_for(lambda: self._is_over or not self.is_blocked())
                    self._events.append(event)
                now = time.monotonic()
                self._gaps.append(now - last)
                last = now
                self.events_seen += 1

    def _read_log(self, stderr: IO[bytes]) -> None:
        with stderr:
            while piece := os.read(stderr.fileno(), 1 << 14):
                self._stderr += piece
                del self._stderr[:-STDERR_TAIL_BYTES]


def _start_thread(read: Callable[[IO[bytes]], None], stream: IO[bytes]) -> threading.Thread:
    thread = thread_of_job(read, stream)
    thread.start()
    return thread


def _event_of(line: bytes) -> Event | None:
    try:
        return parse_event(line)
    except ValidationError:
        logger.warning("a line on the child's stdout is no event: %r", line[:200])
        return None
