"""Starts the processes of one run and represents them: `python -m nayer_core distill --processes N ...`.

Its caller sees one program: the first of the N processes writes to its stdout, SIGTERM stops all, the exit
code is that of the first, and when one process dies all end. If another process alone refuses the run, for
example because its device is full, the launcher reports that refusal.

Imports only the standard library and the contract: this process computes nothing and does not load torch.
"""

import collections
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self, TextIO

from pydantic import ValidationError

from nayer_core.contract.events import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_STOPPED,
    Emit,
    FailedEvent,
    parse_event,
)

MEETING_FILE = "NAYER_CORE_MEETING_FILE"  # the processes find each other by a file: it needs no free port
LAUNCHER_PID = "NAYER_CORE_LAUNCHER_PID"

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TICK_SECONDS = 0.05
_GRACE_SECONDS = 10.0  # from one process's refusal to the end of those that wait for it
_ENDS = (EXIT_DONE, EXIT_REFUSED, EXIT_STOPPED)


def run_in_processes(argv: Sequence[str], count: int, events: TextIO, emit: Emit) -> int:
    """Run the command in `count` processes to their end.

    Args:
        argv: the words after `python -m nayer_core`; each process gets all of them.
        count: how many; each has a GPU of its own, or its share of the cores.
        events: the file that the first process writes its events to.
        emit: reports a refusal; used after the other processes have ended.

    Returns:
        The exit code of the program's contract.
    """
    with tempfile.TemporaryDirectory() as folder, _StopFlag() as stop:
        processes = [
            _RunProcess(argv, rank, count, Path(folder) / "meeting", events) for rank in range(count)
        ]
        try:
            _wait(processes, stop)
        finally:
            for process in processes:
                process.kill()
    return _outcome(processes, emit)


def die_with_launcher() -> None:
    """Make the kernel kill this process when its launcher dies (Linux); without a launcher do nothing."""
    launcher = os.environ.get(LAUNCHER_PID)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(launcher):  # it died before the line above
        sys.exit("the process that started this one is gone")


class _RunProcess:
    """One of the processes. Of those that do not write to stdout it keeps the last line."""

    def __init__(self, argv: Sequence[str], rank: int, count: int, meeting: Path, events: TextIO):
        safe_path = ["-P"] if sys.flags.safe_path else []  # as this process was started itself
        self.rank = rank
        self.process = subprocess.Popen(
            [sys.executable, *safe_path, "-m", "nayer_core", *argv],
            env=_environment(os.environ, rank, count, meeting),
            stdin=subprocess.DEVNULL,
            stdout=events.fileno() if rank == 0 else subprocess.PIPE,
        )
        self._last: collections.deque[bytes] = collections.deque(maxlen=1)
        if self.process.stdout is not None:
            self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
            self._reader.start()

    @property
    def code(self) -> int | None:
        """Exit code; the negative signal number if a signal ended it; None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self.process.kill()
        self.process.wait()

    def refusal(self) -> FailedEvent | None:
        """Return the reason for exit code 2 of a process other than the first; else None."""
        if self.rank == 0 or self.code != EXIT_REFUSED:
            return None
        self._reader.join(timeout=5)
        try:
            event = parse_event(self._last[-1])
        except (IndexError, ValidationError):
            return None
        return event if isinstance(event, FailedEvent) else None

    def _read(self, stdout: IO[bytes]) -> None:
        with stdout:
            self._last.extend(stdout)


class _StopFlag:
    """During the block, SIGTERM sets a flag."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self.requested = True


def _wait(processes: Sequence[_RunProcess], stop: _StopFlag) -> None:
    """Wait until all have ended, or until one has died: the others cannot continue without it."""
    passed_on, refused_at = False, None
    while any(process.code is None for process in processes):
        codes = [process.code for process in processes]
        if any(code is not None and code < 0 for code in codes):
            return
        if any(code not in (None, EXIT_DONE, EXIT_STOPPED) for code in codes):
            refused_at = refused_at or time.monotonic()
            if time.monotonic() - refused_at > _GRACE_SECONDS:
                return
        if stop.requested and not passed_on:
            processes[0].process.terminate()  # it stops the others between two steps
            passed_on = True
        time.sleep(_TICK_SECONDS)


def _outcome(processes: Sequence[_RunProcess], emit: Emit) -> int:
    first = processes[0].code
    if first in _ENDS:
        return int(first or EXIT_DONE)
    for process in processes:
        if (refusal := process.refusal()) is not None:
            emit(refusal)
            return EXIT_REFUSED
    ends = ", ".join(str(process.code) for process in processes)
    sys.stderr.write(f"the run's processes ended with {ends}; below 0 it is the signal that ended one\n")
    return EXIT_BUG


def _environment(inherited: Mapping[str, str], rank: int, count: int, meeting: Path) -> dict[str, str]:
    """Return a process's environment: torchrun's variables, a share of the threads, the meeting file."""
    threads = int(inherited.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    own_variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": str(max(1, threads // count)),
        MEETING_FILE: str(meeting),
        LAUNCHER_PID: str(os.getpid()),
    }
    # All are on one machine: host names need not resolve, and an empty network namespace is enough.
    by_loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return (by_loopback if sys.platform.startswith("linux") else {}) | dict(inherited) | own_variables
