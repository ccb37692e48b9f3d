"""Holding on to a claim, and noticing when it must be let go.

A thread renews the lease and reads what the client wants. Two clocks decide: the database's says
who holds the job, this process's says how long ago the database last told us so. When that is too
long ago nothing may be written, though the child computes on: the lease may have run out and
another worker may hold the job. The next answer settles it, either way.
"""

import logging
import threading
import time
from enum import StrEnum
from types import TracebackType
from typing import Self

from jobs.errors import JobsError, LeaseLost, ServiceUnavailable
from jobs.service.for_workers import WorkerJobs
from jobs.values import Claim
from worker.logs import thread_of_job

logger = logging.getLogger(__name__)

CONTROL_SECONDS = 1.0  # how often the client's wishes are read; cancel must take effect within 5 s


class StopReason(StrEnum):
    """Why a child must end before it is done."""

    LOST = "lost"
    CANCELLED = "cancelled"
    MAX_RUNTIME = "max_runtime"
    PAUSED = "paused"
    DRAINED = "drained"

    @property
    def keeps_state(self) -> bool:
        """Whether the job goes on later, so that its last state is worth waiting for."""
        return self in (StopReason.PAUSED, StopReason.DRAINED)


class Drain:
    """A worker's wish to go home: set once, by a signal, for all its jobs.

    Args:
        seconds: how long its jobs have, from then on, to be put away.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._since: float | None = None

    def request(self) -> None:
        """Ask every job of this worker to stop; safe in a signal handler."""
        if self._since is None:
            self._since = time.monotonic()

    @property
    def requested(self) -> bool:
        """Whether the worker is going home."""
        return self._since is not None

    def remaining_seconds(self) -> float:
        """What is left of the time to put jobs away; all of it while nobody asked."""
        since = self._since
        return self._seconds if since is None else self._seconds - (time.monotonic() - since)


class Lease:
    """The holder's side of a claim, used as a context: a thread renews it until the end.

    Args:
        service: answers heartbeats.
        claim: what is held.
        lease_seconds: how long the database grants at each heartbeat.
        drain: the worker's wish to go home.
    """

    def __init__(self, service: WorkerJobs, claim: Claim, lease_seconds: float, drain: Drain):
        self._service = service
        self._claim = claim
        self._drain = drain
        # Every answer also carries the client's wishes, so it is asked for at their pace.
        self._interval = min(CONTROL_SECONDS, lease_seconds / 3)
        # A write that begins now must reach the database before the lease ends there.
        self._trusted_seconds = lease_seconds - min(5.0, lease_seconds / 6)
        self._renewed_at = time.monotonic()
        self._lost = False
        self._cancel = False
        self._pause = False
        self._deadline: float | None = None
        self._over = threading.Event()
        self._thread = thread_of_job(self._renew_until_over)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=self._interval + 1)  # a heartbeat that hangs harms nobody

    def stop_reason(self) -> StopReason | None:
        """Why the work must end now; None while it may go on."""
        if self._lost:
            return StopReason.LOST
        if self._cancel:
            return StopReason.CANCELLED
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return StopReason.MAX_RUNTIME
        if self._pause:
            return StopReason.PAUSED
        return StopReason.DRAINED if self._drain.requested else None

    def is_certain(self) -> bool:
        """Whether the job is ours beyond doubt, so that writing makes sense."""
        return not self._lost and time.monotonic() - self._renewed_at < self._trusted_seconds

    def lose(self) -> None:
        """Take note that a write was refused: somebody else holds the job, or it has ended."""
        self._lost = True

    def _renew_until_over(self) -> None:
        while not self._over.wait(self._interval) and not self._lost:
            asked_at = time.monotonic()
            try:
                control = self._service.heartbeat(self._claim)
            except ServiceUnavailable as error:
                logger.warning("heartbeat not answered: %s", error.message)
                continue
            except LeaseLost:
                self._lost = True
                continue
            except JobsError:
                logger.exception("heartbeat refused")
                continue
            self._lost = control.lost
            self._cancel = control.cancel_requested
            self._pause = control.pause_requested
            if control.remaining_seconds is not None:
                self._deadline = asked_at + control.remaining_seconds
            self._renewed_at = asked_at
