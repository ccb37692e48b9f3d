"""Detects a child that runs for too long, or that makes no progress."""

import time

from worker.process.child import Child

_LONGEST_TICK = 1.0  # seconds
_MEDIANS = 10  # ten times the usual gap is more than a pause


class Watchdog:
    """Counts a child's seconds from its supervisor's ticks.

    It does not use the wall clock: time in which the supervisor itself was suspended must not count
    against the child.

    Args:
        seconds: how long the child may run; None for no limit.
        stall_seconds: how long it may be silent, or ten times its median gap if that is longer.
    """

    def __init__(self, *, seconds: float | None = None, stall_seconds: float | None = None):
        self._seconds = seconds
        self._stall_seconds = stall_seconds
        self._ran = 0.0
        self._silent = 0.0
        self._events_seen = 0
        self._last_tick = time.monotonic()

    def complaint(self, child: Child) -> str | None:
        """Check the child, several times a second; returns the problem, or None."""
        now = time.monotonic()
        tick = min(now - self._last_tick, _LONGEST_TICK)
        self._last_tick = now
        self._ran += tick
        self._silent += tick
        if child.events_seen != self._events_seen or child.is_blocked():
            self._events_seen = child.events_seen
            self._silent = 0.0
        if self._seconds is not None and self._ran > self._seconds:
            return f"it ran longer than {self._seconds:.0f} s"
        if self._stall_seconds is None:
            return None
        patience = max(self._stall_seconds, _MEDIANS * child.median_gap())
        return f"it made no step for {patience:.0f} s" if self._silent > patience else None
