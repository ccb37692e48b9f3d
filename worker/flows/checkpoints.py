"""A run's checkpoints: to the store beside the run, and back from it to whoever goes on.

The child writes generations of files and drops old ones at its own pace. Each generation is linked
into a folder of ours at once and stored by a thread of its own, so that a slow store delays neither
the child nor the lease. Files come first, then the fenced row that makes them current. While the
store is away only the newest generation is kept waiting: it makes the ones before superfluous.
"""

import itertools
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.errors import FileCorrupt, FileMissing, LeaseLost, ServiceUnavailable
from jobs.values import Checkpoint, StoredFile
from nayer_core.contract.events import CheckpointEvent, WarningEvent
from worker.claims.attempt import Attempt
from worker.claims.lease import StopReason
from worker.logs import thread_of_job
from worker.process.scratch import remove_tree

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 0.5


@dataclass(frozen=True)
class _Generation:
    """A checkpoint whose files can no longer be taken away by the child."""

    event: CheckpointEvent
    folder: Path


class CheckpointKeeper:
    """Stores what a child saves, used as a context around its run.

    Args:
        attempt: whose child it is.
        folder: where the child writes its checkpoints.
        resumed: what the run goes on from; its files are in the store already.
    """

    def __init__(self, attempt: Attempt, folder: Path, resumed: Checkpoint | None):
        self._attempt = attempt
        self._source = folder
        self._links = attempt.folder / "checkpoints"
        self._links.mkdir(exist_ok=True)
        self._numbers = itertools.count()
        # Bodies by hash: named by the newest row, and stored since then but not yet named.
        self._named = _bodies(resumed) if resumed else {}
        self._unnamed: dict[str, tuple[StoredFile, float]] = {}
        self._changed = threading.Condition()
        self._newest: _Generation | None = None
        self._storing: _Generation | None = None
        self._closed = False
        self._thread = thread_of_job(self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # One that hangs in a request harms nobody: its fence refuses whatever it still writes.
        self._thread.join(timeout=_CLOSE_SECONDS)

    def take(self, event: CheckpointEvent) -> None:
        """Hold on to the files of a checkpoint, and have it stored; returns at once.

        A file that is gone already belongs to a generation that newer ones have replaced: their own
        event follows.
        """
        folder = self._links / str(next(self._numbers))
        try:
            folder.mkdir()
            for name in event.files:
                if Path(name).name != name:
                    raise ValueError(f"{name!r} is not the name of a file")
                (folder / name).hardlink_to(self._source / name)
        except (OSError, ValueError) as error:
            logger.warning("the checkpoint at step %d is passed over: %s", event.step, error)
            remove_tree(folder)
            return
        with self._changed:
            before, self._newest = self._newest, _Generation(event, folder)
            if before is not None and before is not self._storing:
                remove_tree(before.folder)
            self._changed.notify_all()

    def finish(self, seconds: float) -> None:
        """Wait until the newest checkpoint is stored, for `seconds` at most, or until nobody wants it."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._newest is not None and time.monotonic() < until:
                if self._attempt.lease.stop_reason() in (StopReason.LOST, StopReason.CANCELLED):
                    return
                self._changed.wait(0.1)
            if self._newest is not None:
                logger.error("no time is left to store the checkpoint at step %d", self._newest.event.step)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._newest is not None)
                if self._closed:
                    return
                generation = self._storing = self._newest
            assert generation is not None  # noqa: S101 - waited for, just above
            done = self._try_to_store(generation)
            with self._changed:
                self._storing = None
                if done or self._newest is not generation:
                    remove_tree(generation.folder)
                    self._newest = None if self._newest is generation else self._newest
                    self._changed.notify_all()
                else:
                    self._changed.wait_for(lambda: self._closed, timeout=_RETRY_SECONDS)

    def _try_to_store(self, generation: _Generation) -> bool:
        """Store a generation; False where it should be tried again."""
        if not self._attempt.lease.is_certain():
            return False
        step = generation.event.step
        try:
            self._store(generation)
        except ServiceUnavailable as error:
            logger.warning("the checkpoint at step %d waits: %s", step, error.message)
            return False
        except LeaseLost:
            self._attempt.lease.lose()
        except Exception:  # the run must outlive whatever is wrong with one of its checkpoints
            logger.exception("the checkpoint at step %d is passed over", step)
        else:
            logger.info("stored the checkpoint at step %d", step)
        return True

    def _store(self, generation: _Generation) -> None:
        event, attempt = generation.event, self._attempt
        files = {name: self._body(generation.folder / name, sha) for name, sha in event.files.items()}
        checkpoint = Checkpoint(attempt.claim.fence, event.epoch, event.step, files)
        attempt.service.checkpointed(attempt.claim, checkpoint)
        self._named, self._unnamed = _bodies(checkpoint), {}

    def _body(self, path: Path, sha256: str) -> StoredFile:
        if sha256 in self._named:
            return self._named[sha256]
        stored, since = self._unnamed.get(sha256, (None, 0.0))
        # The sweep removes what no row has named for long.
        if stored is None or time.monotonic() - since > self._attempt.settings.sweep_grace_seconds / 2:
            stored = self._attempt.storage.publish(path, "checkpoints")
            if stored.sha256 != sha256:
                raise FileCorrupt(f"{path.name} has sha256 {stored.sha256}, the child said {sha256}.")
            self._unnamed[sha256] = (stored, time.monotonic())
        return stored


def restore(attempt: Attempt, folder: Path) -> Checkpoint | None:
    """Bring the newest whole checkpoint of a job into an empty folder.

    One that the store has lost or damaged is stepped over, which the job's owner is told.

    Returns:
        The checkpoint; None, with the folder empty, where the run must begin at its beginning.
    """
    fetched: dict[str, str] = {}
    found = attempt.write(lambda: attempt.service.checkpoints(attempt.claim))
    for checkpoint in found:
        _keep_only(folder, fetched, checkpoint)
        try:
            for name, stored in checkpoint.files.items():
                if name not in fetched:
                    attempt.fetch(stored, folder / name)
                    fetched[name] = stored.sha256
        except (FileMissing, FileCorrupt) as error:
            logger.error("the checkpoint at step %d is not whole: %s", checkpoint.step, error.message)
            message = f"The checkpoint at step {checkpoint.step} is damaged; an older one is looked for."
            attempt.tell([WarningEvent(code="checkpoint_damaged", message=message)])
        else:
            return checkpoint
    if found:
        _keep_only(folder, fetched, None)
        attempt.tell([started_anew("no checkpoint is whole")])
    return None


def started_anew(reason: str) -> WarningEvent:
    """What the owner of a job is told when its run begins at its beginning once more."""
    return WarningEvent(code="started_anew", message=f"The run begins at its beginning: {reason}.")


def _keep_only(folder: Path, fetched: dict[str, str], wanted: Checkpoint | None) -> None:
    """Remove fetched files that are not of the wanted checkpoint; it shares its bank with the one before."""
    files = wanted.files if wanted else {}
    for name, sha256 in list(fetched.items()):
        if name not in files or files[name].sha256 != sha256:
            (folder / name).unlink()
            del fetched[name]


def _bodies(checkpoint: Checkpoint) -> dict[str, StoredFile]:
    return {stored.sha256: stored for stored in checkpoint.files.values()}
