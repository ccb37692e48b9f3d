"""One command of the core, run for a held job: from its start to a result or an outcome."""

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import (
    EXIT_DONE,
    EXIT_REFUSED,
    CheckpointEvent,
    Event,
    FailedEvent,
    FinishedEvent,
    WarningEvent,
)
from worker.claims.held_job import HeldJob
from worker.claims.lease import StopReason
from worker.claims.outcomes import Crashed, DiskFailed, Refused, stop_error
from worker.process.child import Child, Limits
from worker.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.2  # events reach the database within two of them


class CoreRun:
    """A child process with the core's program; its events go into the job's log.

    Args:
        job: the job of this command.
        program: the command that precedes the core's arguments; its first word is an absolute path.
        watchdog: decides when the child takes too long, or is silent for too long.
        on_checkpoint: is called with each state that the child has saved; must return at once.
    """

    def __init__(
        self,
        job: HeldJob,
        program: Sequence[str],
        watchdog: Watchdog,
        on_checkpoint: Callable[[CheckpointEvent], None] | None = None,
    ):
        self.warnings: list[dict[str, str]] = []  # {"code", "message"} of each warning of the child
        self._job = job
        self._lease = job.lease
        self._log = job.events
        self._program = program
        self._watchdog = watchdog
        self._on_checkpoint = on_checkpoint
        self._last_event: Event | None = None

    def execute(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], limits: Limits
    ) -> dict[str, Any]:
        """Run one command of the core to its end.

        Args:
            arguments: the core's arguments; the other parameters are those of `Child`.

        Returns:
            The `result` of its `finished` line.

        Raises:
            Refused: the core refused the request.
            Crashed: it crashed, hung, or was killed; `DiskFailed` if the disk could not store more.
            Stopped: it was ended because the job or the worker must stop.
            LeaseLost: the job is no longer ours.
        """
        if (reason := self._lease.stop_reason()) is not None:
            raise stop_error(reason)
        logger.info("starting the core: %s", arguments[0])
        child = Child([*self._program, *arguments], folder=folder, environment=environment, limits=limits)
        complaint = None
        try:
            while child.running() and reason is None and complaint is None:
                time.sleep(_TICK_SECONDS)
                self._pass_on_events(child)
                reason = self._lease.stop_reason()
                complaint = self._watchdog.complaint(child)
            if reason is not None:
                reason = self._wind_down(child, reason)
        finally:
            code = child.end()
            logger.info(
                "the core ended: %s", arguments[0], extra={"exit_code": code, "stderr": child.stderr_tail()}
            )
        if reason is not StopReason.LOST:
            self._pass_on_last_events(child)
        if complaint is not None:
            raise Crashed(complaint, by_force=True)
        return self._result(code, reason)

    def _pass_on_events(self, child: Child) -> None:
        events = child.take_events(self._log.room)
        if events:
            self._last_event = events[-1]
        for event in events:
            if isinstance(event, WarningEvent):
                self.warnings.append({"code": event.code, "message": event.message})
            elif isinstance(event, CheckpointEvent) and self._on_checkpoint is not None:
                self._on_checkpoint(event)
        self._log.add(events)
        self._log.flush()

    def _pass_on_last_events(self, child: Child) -> None:
        patience = self._job.patience(ignore_stop=True)
        while True:
            self._pass_on_events(child)
            if self._log.is_empty and not child.has_events():
                return
            if not self._log.is_empty:
                patience.wait("events wait for the database")

    def _wind_down(self, child: Child, reason: StopReason) -> StopReason:
        """Let the child save its state where it is needed; returns the newest reason to stop."""
        grace = self._grace_seconds(reason)
        logger.info("stopping the core: %s, %.1f s", reason, grace)
        if grace > 0:
            child.request_stop()
        until = time.monotonic() + grace
        while child.running() and time.monotonic() < until:
            time.sleep(_TICK_SECONDS / 4)
            self._pass_on_events(child)
            newest = self._lease.stop_reason() or reason
            if newest is not reason:  # a client who waits for a pause may still cancel
                reason = newest
                until = min(until, time.monotonic() + self._grace_seconds(reason))
        return reason

    def _grace_seconds(self, reason: StopReason) -> float:
        """Seconds for the child to save its state; 0 if nobody will read that state."""
        return self._job.drain.child_seconds() if reason.keeps_state else 0.0

    def _result(self, code: int, reason: StopReason | None) -> dict[str, Any]:
        last = self._last_event
        if reason in (StopReason.LOST, StopReason.CANCELLED):
            raise stop_error(reason)
        if code == EXIT_DONE and isinstance(last, FinishedEvent):
            return last.result
        if code == EXIT_REFUSED and isinstance(last, FailedEvent):
            if last.code is ErrorCode.DISK_FAILED:
                raise DiskFailed("accepted no more data from the program")
            raise Refused(last.code, last.message, last.hint, retryable=last.retryable)
        if reason is not None:
            raise stop_error(reason)
        if code < 0:
            raise Crashed(f"it was ended by {signal.Signals(-code).name}", by_force=True)
        raise Crashed(f"it ended with exit code {code}", by_force=False)
