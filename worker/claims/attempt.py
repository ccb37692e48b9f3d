"""One claim being worked on: what its steps need, and nothing about which steps there are."""

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from jobs.errors import FileCorrupt, LeaseLost, ServiceUnavailable
from jobs.files.store import Storage
from jobs.service.for_workers import WorkerJobs
from jobs.settings import Settings
from jobs.values import Claim, StoredFile
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
from worker.claims.event_writer import Recorder
from worker.claims.lease import Drain, Lease, StopReason
from worker.claims.outcomes import Crashed, DiskFailed, Refused, Stopped
from worker.process.child import Child, Limits
from worker.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_TICK_SECONDS = 0.2  # events reach the database within two of them
_RETRY_SECONDS = 1.0
_PATIENCE_SECONDS = 900.0  # an outage longer than this gives the slot back; the reaper keeps the job
_READS_OF_ONE_FILE = 3
# Of the time left to put a job away: the child's share, then that of its last checkpoint's way to the
# store; the rest is for giving the job back.
_CHILDS_SHARE = 0.6
_CHECKPOINTS_SHARE = 0.7


@dataclass(frozen=True)
class Workplace:
    """What all attempts of a worker share.

    Args:
        program: the command that precedes the core's arguments; its first word is an absolute path.
    """

    service: WorkerJobs
    storage: Storage
    settings: Settings
    drain: Drain
    program: Sequence[str]


class Attempt:
    """A claim with its lease, its scratch folder and the way to run the core on it.

    Args:
        place: what all attempts share.
        claim: the job and the right to it.
        lease: kept alive by its own thread as long as the attempt lasts.
        folder: private; removed when the attempt ends.
    """

    def __init__(self, place: Workplace, claim: Claim, lease: Lease, folder: Path):
        self.claim = claim
        self.folder = folder
        self.service = place.service
        self.settings = place.settings
        self.storage = place.storage
        self.drain = place.drain
        self._program = place.program
        self.lease = lease
        self._recorder = Recorder(place.service, claim, lease)
        self._last: Event | None = None
        self._on_checkpoint: Callable[[CheckpointEvent], None] | None = None
        self.warnings: list[dict[str, str]] = []  # {"code", "message"} of all its children

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        limits: Limits,
        watchdog: Watchdog,
        on_checkpoint: Callable[[CheckpointEvent], None] | None = None,
    ) -> dict[str, Any]:
        """Run one command of the core to its end; its events go into the job's log.

        Args:
            arguments: what follows the program's name; the others are as for `Child`.
            on_checkpoint: is told of states that were saved, and must return at once.

        Returns:
            The `result` of its `finished` line.

        Raises:
            Refused: it said that the request cannot work.
            Crashed: it broke down, hung, or was killed; `DiskFailed` where it had no room.
            Stopped: it was ended because the job or the worker is to stop.
            LeaseLost: the job is no longer ours.
        """
        self._last = None
        self._on_checkpoint = on_checkpoint
        self._stop_if_wanted()
        logger.info("starting the core: %s", arguments[0])
        child = Child([*self._program, *arguments], folder=folder, environment=environment, limits=limits)
        complaint, asked = None, None
        try:
            while child.running() and asked is None and complaint is None:
                time.sleep(_TICK_SECONDS)
                self._pass_on(child)
                asked = self.lease.stop_reason()
                complaint = watchdog.complaint(child)
            if asked is not None:
                asked = self._wind_down(child, asked)
        finally:
            code = child.end()
            logger.info(
                "the core ended: %s", arguments[0], extra={"exit_code": code, "stderr": child.stderr_tail()}
            )
        if asked is not StopReason.LOST:
            self._pass_on_rest(child)
        if complaint is not None:
            raise Crashed(complaint, by_force=True)
        return self._result(code, asked)

    def tell(self, events: Sequence[Event]) -> None:
        """Put events of the worker's own into the job's log."""
        self._recorder.add(events)
        self._recorder.flush()  # or with the next child's, when the database is away

    def fetch(self, stored: StoredFile, path: Path) -> Path:
        """Bring a stored file into the scratch folder; its hash is checked."""
        self._persist(lambda: self.storage.get_to_file(stored, path))
        return path

    def store(self, path: Path, kind: Literal["inputs", "artifacts", "embeddings", "banks"]) -> StoredFile:
        """Put a file into the store."""
        return self._persist(lambda: self.storage.publish(path, kind))

    def write(self, transaction: Callable[[], Result]) -> Result:
        """Do one transaction of the job service, as often as an outage makes necessary."""
        return self._persist(transaction)

    @property
    def checkpoint_seconds_left(self) -> float:
        """How long the last checkpoint's way to the store may take when the job is put away."""
        return self.drain.remaining_seconds() * _CHECKPOINTS_SHARE

    def conclude(self, transaction: Callable[[], Result]) -> Result:
        """Do the last transaction: like `write`, but no wish to stop can make it superfluous."""
        return self._persist(transaction, last=True)

    def _pass_on(self, child: Child) -> None:
        events = child.take_events(self._recorder.room)
        if events:
            self._last = events[-1]
        for event in events:
            if isinstance(event, WarningEvent):
                self.warnings.append({"code": event.code, "message": event.message})
            elif isinstance(event, CheckpointEvent) and self._on_checkpoint is not None:
                self._on_checkpoint(event)
        self._recorder.add(events)
        self._recorder.flush()

    def _pass_on_rest(self, child: Child) -> None:
        since = time.monotonic()
        while True:
            self._pass_on(child)
            if self._recorder.is_empty and not child.has_events():
                return
            if not self._recorder.is_empty:
                self._wait_out(since, last=True, why="events wait for the database")

    def _wind_down(self, child: Child, asked: StopReason) -> StopReason:
        """Let the child save its state where that is wanted; returns the latest reason to stop."""
        grace = self._grace_seconds(asked)
        logger.info("stopping the core: %s, %.1f s", asked, grace)
        if grace > 0:
            child.ask_to_stop()
        until = time.monotonic() + grace
        while child.running() and time.monotonic() < until:
            time.sleep(_TICK_SECONDS / 4)
            self._pass_on(child)
            now_asked = self.lease.stop_reason() or asked
            if now_asked is not asked:  # a client who waits for a pause may still cancel
                asked = now_asked
                until = min(until, time.monotonic() + self._grace_seconds(asked))
        return asked

    def _grace_seconds(self, asked: StopReason) -> float:
        if asked is StopReason.LOST:
            return 0.0
        if asked.keeps_state:
            return self.drain.remaining_seconds() * _CHILDS_SHARE
        return self.settings.stop_grace_seconds

    def _result(self, code: int, asked: StopReason | None) -> dict[str, Any]:
        if asked in (StopReason.LOST, StopReason.CANCELLED):
            raise Stopped(asked)
        if code == EXIT_DONE and isinstance(self._last, FinishedEvent):
            return self._last.result
        if code == EXIT_REFUSED and isinstance(self._last, FailedEvent):
            last = self._last
            if last.code is ErrorCode.DISK_FAILED:
                raise DiskFailed("took no more from the program")
            raise Refused(last.code, last.message, last.hint, retryable=last.retryable)
        if asked is not None:
            raise Stopped(asked)
        if code < 0:
            raise Crashed(f"it was ended by {signal.Signals(-code).name}", by_force=True)
        raise Crashed(f"it ended with exit code {code}", by_force=False)

    def _stop_if_wanted(self) -> None:
        if (reason := self.lease.stop_reason()) is not None:
            raise Stopped(reason)

    def _persist(self, action: Callable[[], Result], *, last: bool = False) -> Result:
        since = time.monotonic()
        corrupt = 0
        while True:
            why = "the lease is in doubt"
            if self.lease.is_certain():
                try:
                    return action()
                except LeaseLost:
                    self.lease.lose()
                    raise
                except ServiceUnavailable as error:
                    why = error.message
                except FileCorrupt as error:  # on the way, perhaps; in the store, if it stays so
                    why = error.message
                    corrupt += 1
                    if corrupt == _READS_OF_ONE_FILE:
                        raise
            self._wait_out(since, last=last, why=why)

    def _wait_out(self, since: float, *, last: bool, why: str) -> None:
        reason = self.lease.stop_reason()
        if reason is StopReason.LOST or (reason is not None and not last):
            raise Stopped(reason)
        if time.monotonic() - since > _PATIENCE_SECONDS or self.drain.remaining_seconds() <= 0:
            raise ServiceUnavailable("service", f"given up waiting: {why}")
        logger.warning("waiting: %s", why)
        time.sleep(_RETRY_SECONDS)
