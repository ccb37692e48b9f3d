"""Stores the checkpoints of a run while it runs, and restores them for the worker that continues it.

The child writes generations of files and drops old ones at its own pace. Each generation is linked into a
folder of ours at once and stored by a thread of its own, so that a slow store delays neither the child nor
the lease. Files come first, then the fenced row that makes them current. While the store does not answer,
only the newest generation waits: it replaces the earlier ones.
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
from jobs.values.files import Checkpoint, StoredFile
from nayer_core.contract.events import CheckpointEvent, WarningEvent
from worker.claims.held_job import HeldJob
from worker.claims.lease import StopReason
from worker.claims.workbench import Workbench
from worker.logs import thread_of_job
from worker.process.scratch import remove_tree

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 0.5


@dataclass(frozen=True)
class _Generation:
    """A checkpoint whose files the child can no longer remove."""

    event: CheckpointEvent
    folder: Path


class CheckpointKeeper:
    """Stores the checkpoints of a child, used as a context around its run.

    Args:
        job: the job of the child.
        bench: the folder and the tools of the job.
        folder: the folder into which the child writes its checkpoints.
        start: the checkpoint from which the run resumes, if any; its files are in the store already.
    """

    def __init__(self, job: HeldJob, bench: Workbench, folder: Path, start: Checkpoint | None):
        self._job = job
        self._lease = job.lease
        self._bench = bench
        self._source = folder
        self._links = bench.folder / "checkpoints"
        self._links.mkdir(exist_ok=True)
        self._numbers = itertools.count()
        # Files in the store by hash: those that the newest row names, and those that none names yet.
        self._files_of_row = _files_by_hash(start) if start else {}
        self._new_files: dict[str, tuple[StoredFile, float]] = {}
        self._change = threading.Condition()
        self._newest: _Generation | None = None
        self._storing: _Generation | None = None
        self._is_closed = False
        self._thread = thread_of_job(self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        # A thread that hangs in a request does no harm: the database refuses its later writes by their fence.
        self._thread.join(timeout=_CLOSE_SECONDS)

    def take(self, event: CheckpointEvent) -> None:
        """Link the files of a checkpoint and let the thread store it; returns at once.

        If a file is missing, a newer generation has replaced this one, and its own event follows.
        """
        folder = self._links / str(next(self._numbers))
        try:
            folder.mkdir()
            for name in event.files:
                if Path(name).name != name:
                    raise ValueError(f"{name!r} is not the name of a file")
                (folder / name).hardlink_to(self._source / name)
        except (OSError, ValueError) as error:
            logger.warning("the checkpoint at step %d is skipped: %s", event.step, error)
            remove_tree(folder)
            return
        with self._change:
            before, self._newest = self._newest, _Generation(event, folder)
            if before is not None and before is not self._storing:
                remove_tree(before.folder)
            self._change.notify_all()

    def finish(self, seconds: float) -> None:
        """Wait until the newest checkpoint is stored, for `seconds` at most, or until nobody needs it."""
        until = time.monotonic() + seconds
        with self._change:
            while self._newest is not None and time.monotonic() < until:
                if self._lease.stop_reason() in (StopReason.LOST, StopReason.CANCELLED):
                    return
                self._change.wait(0.1)
            if self._newest is not None:
                logger.error("no time is left to store the checkpoint at step %d", self._newest.event.step)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_closed or self._newest is not None)
                if self._is_closed:
                    return
                generation = self._storing = self._newest
            assert generation is not None  # noqa: S101 - waited for, just above
            is_settled = self._try_to_store(generation)
            with self._change:
                self._storing = None
                if is_settled or self._newest is not generation:
                    remove_tree(generation.folder)
                    self._newest = None if self._newest is generation else self._newest
                    self._change.notify_all()
                else:
                    self._change.wait_for(lambda: self._is_closed, timeout=_RETRY_SECONDS)

    def _try_to_store(self, generation: _Generation) -> bool:
        """Store a generation; False where it should be tried again."""
        if not self._lease.is_certain():
            return False
        step = generation.event.step
        try:
            self._store(generation)
        except ServiceUnavailable as error:
            logger.warning("the checkpoint at step %d waits: %s", step, error.message)
            return False
        except LeaseLost:
            logger.warning("the checkpoint at step %d was refused: the job is no longer ours", step)
        except Exception:  # the run must outlive whatever is wrong with one of its checkpoints
            logger.exception("the checkpoint at step %d is skipped", step)
        else:
            logger.info("stored the checkpoint at step %d", step)
        return True

    def _store(self, generation: _Generation) -> None:
        event = generation.event
        files = {name: self._stored_file(generation.folder / name, sha) for name, sha in event.files.items()}
        checkpoint = self._job.add_checkpoint(event.epoch, event.step, files)
        self._files_of_row, self._new_files = _files_by_hash(checkpoint), {}

    def _stored_file(self, path: Path, sha256: str) -> StoredFile:
        """Return the stored file with this content; store it first if it is new."""
        if sha256 in self._files_of_row:
            return self._files_of_row[sha256]
        file, since = self._new_files.get(sha256, (None, 0.0))
        # The sweep removes files that no row has named for a long time.
        if file is None or time.monotonic() - since > self._bench.settings.sweep_grace_seconds / 2:
            file = self._bench.storage.publish(path, "checkpoints")
            if file.sha256 != sha256:
                raise FileCorrupt(f"{path.name} has sha256 {file.sha256}, the child reported {sha256}.")
            self._new_files[sha256] = (file, time.monotonic())
        return file


def restore(job: HeldJob, bench: Workbench, folder: Path) -> Checkpoint | None:
    """Fetch the newest whole checkpoint of a job into an empty folder.

    One that the store has lost or damaged is skipped, with a warning for the job's owner.

    Returns:
        The checkpoint; None, with the folder empty, where the run must start from the beginning.
    """
    hashes: dict[str, str] = {}  # of the files in the folder, by name
    checkpoints = job.checkpoints()
    for checkpoint in checkpoints:
        _keep_only(folder, hashes, checkpoint)
        try:
            for name, file in checkpoint.files.items():
                if name not in hashes:
                    bench.fetch(file, folder / name)
                    hashes[name] = file.sha256
        except (FileMissing, FileCorrupt) as error:
            logger.error("the checkpoint at step %d is not whole: %s", checkpoint.step, error.message)
            message = f"The checkpoint at step {checkpoint.step} is damaged. The run looks for an older one."
            job.log_events([WarningEvent(code="checkpoint_damaged", message=message)])
        else:
            return checkpoint
    if checkpoints:
        _keep_only(folder, hashes, None)
        job.log_events([restart_warning("no checkpoint is whole")])
    return None


def restart_warning(reason: str) -> WarningEvent:
    """Return the warning to the owner of a job whose run starts from the beginning again."""
    return WarningEvent(code="started_anew", message=f"The run starts from the beginning: {reason}.")


def _keep_only(folder: Path, hashes: dict[str, str], checkpoint: Checkpoint | None) -> None:
    """Remove the files that do not belong to this checkpoint; it shares its bank with the one before."""
    files = checkpoint.files if checkpoint else {}
    for name, sha256 in list(hashes.items()):
        if name not in files or files[name].sha256 != sha256:
            (folder / name).unlink()
            del hashes[name]


def _files_by_hash(checkpoint: Checkpoint) -> dict[str, StoredFile]:
    return {file.sha256: file for file in checkpoint.files.values()}
