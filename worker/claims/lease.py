"""Keeps a claim alive, and detects when the work on it must stop.

A thread renews the lease and reads the client's requests. There are two clocks: the database's clock
decides who holds the job; this process's clock measures the time since the database last confirmed the
claim. After too long without an answer nothing may be written, but the child continues: the lease may have
run out, and another worker may hold the job. The next answer decides.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from jobs.errors import JobsError, LeaseLost, ServiceUnavailable
from jobs.values.claims import Control
from worker.claims.drain import Drain
from worker.logs import thread_of_job

logger = logging.getLogger(__name__)

CONTROL_SECONDS = 1.0  # between two reads of the client's requests; a cancel must take effect within 5 s


class StopReason(StrEnum):
    """Why a child must end before it has finished."""

    LOST = "lost"
    CANCELLED = "cancelled"
    MAX_RUNTIME = "max_runtime"
    PAUSED = "paused"
    DRAINED = "drained"

    @property
    def keeps_state(self) -> bool:
        """Whether the job continues later, so that its last state is worth waiting for."""
        return self in (StopReason.PAUSED, StopReason.DRAINED)


class Lease:
    """The holder's side of a claim, used as a context: a thread renews it until the end.

    Args:
        heartbeat: renews the claim in the database, and returns the client's requests.
        lease_seconds: how long the database grants at each heartbeat.
        drain: the worker's shutdown, which stops the job as well.
    """

    def __init__(self, heartbeat: Callable[[], Control], lease_seconds: float, drain: Drain):
        self._heartbeat = heartbeat
        self._drain = drain
        # Each answer also carries the client's requests, so heartbeats come at their pace.
        self._interval = min(CONTROL_SECONDS, lease_seconds / 3)
        # A write that begins now must reach the database before the lease ends there.
        self._trusted_seconds = lease_seconds - min(5.0, lease_seconds / 6)
        self._renewed_at = time.monotonic()
        self._is_lost = False
        self._cancel_requested = False
        self._pause_requested = False
        self._deadline: float | None = None
        self._end = threading.Event()
        self._thread = thread_of_job(self._renew_until_end)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=self._interval + 1)  # a heartbeat that hangs does no harm

    def stop_reason(self) -> StopReason | None:
        """Why the work must stop now; None while it may continue."""
        if self._is_lost:
            return StopReason.LOST
        if self._cancel_requested:
            return StopReason.CANCELLED
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return StopReason.MAX_RUNTIME
        if self._pause_requested:
            return StopReason.PAUSED
        return StopReason.DRAINED if self._drain.is_requested else None

    def is_certain(self) -> bool:
        """Whether the job is ours without doubt, so that a write makes sense."""
        return not self._is_lost and time.monotonic() - self._renewed_at < self._trusted_seconds

    def lose(self) -> None:
        """Note that a write was refused: another worker holds the job, or it has ended."""
        self._is_lost = True

    def _renew_until_end(self) -> None:
        while not self._end.wait(self._interval) and not self._is_lost:
            request_time = time.monotonic()
            try:
                control = self._heartbeat()
            except ServiceUnavailable as error:
                logger.warning("no answer to a heartbeat: %s", error.message)
                continue
            except LeaseLost:
                self._is_lost = True
                continue
            except JobsError:
                logger.exception("a heartbeat was refused")
                continue
            self._is_lost = control.lost
            self._cancel_requested = control.cancel_requested
            self._pause_requested = control.pause_requested
            if control.remaining_seconds is not None:
                self._deadline = request_time + control.remaining_seconds
            self._renewed_at = request_time
