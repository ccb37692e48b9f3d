import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.process.child import Child, Limits
from worker.process.watchdog import Watchdog

STEPS = """
import sys, time
line = '{"event": "metrics", "time": "2026-01-01T00:00:00Z", "epoch": 1, "step": 1, "values": {}}'
while True:
    print(line, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    command = [sys.executable, "-I", "-S", "-c", STEPS]
    child = Child(command, folder=tmp_path, environment={}, limits=Limits())
    yield child
    child.end()


def complaint_within(watchdog: Watchdog, child: Child, seconds: float) -> str | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (complaint := watchdog.complaint(child)) is not None:
            return complaint
        time.sleep(0.02)
    return None


def test_a_child_that_makes_steps_is_not_reported(child: Child) -> None:
    assert complaint_within(Watchdog(stall_seconds=1.0), child, 2.0) is None


def test_a_child_that_stops_making_steps_is_reported(child: Child) -> None:
    watchdog = Watchdog(stall_seconds=0.5)
    assert complaint_within(watchdog, child, 0.6) is None
    os.kill(child.pid, signal.SIGSTOP)
    assert complaint_within(watchdog, child, 20.0) == "it made no step for 1 s"


def test_a_child_that_runs_too_long_is_reported(child: Child) -> None:
    assert complaint_within(Watchdog(seconds=0.3), child, 20.0) == "it ran longer than 0 s"


def test_time_while_the_supervisor_slept_does_not_count(child: Child) -> None:
    watchdog = Watchdog(seconds=1.5, stall_seconds=1.5)
    time.sleep(2.0)
    assert watchdog.complaint(child) is None
