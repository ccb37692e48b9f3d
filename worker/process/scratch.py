"""The working folders of jobs: private, and removed afterwards.

Every worker process has one folder under the root and holds a lock in it for as long as it lives.
A folder whose lock is free belongs to a dead worker and is removed at the next start. The lock is
the kernel's: unlike a pid it cannot be confused with that of an earlier process or container.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

_LOCK = ".lock"


class Scratch:
    """This worker's own folder.

    Args:
        root: the folder with the folders of all workers of this machine; made if it is missing.

    Raises:
        PermissionError: another user owns `root`, and could read or replace its files.
    """

    def __init__(self, root: Path):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = root.lstat()
        if owner.st_uid != os.geteuid() or not stat.S_ISDIR(owner.st_mode):
            raise PermissionError(f"{root} is not a folder of user {os.geteuid()}; set NAYER_SCRATCH_DIR")
        with _wait_for_lock(root / _LOCK):  # no other worker removes the new folder before it is locked
            _remove_abandoned(root)
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
            self._lock = _take_lock(self.path / _LOCK)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Provide a new private folder; it is removed at the end in every case."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))
        try:
            yield path
        finally:
            remove_tree(path)

    def close(self) -> None:
        """Remove the worker's folder."""
        remove_tree(self.path)
        self._lock.close()


def default_root() -> Path:
    """The default root for the workers of this user."""
    return Path(tempfile.gettempdir()) / f"nayer-scratch-{os.geteuid()}"


def remove_tree(path: Path) -> None:
    """Remove a folder; a failure is logged, and the next start of a worker removes the rest."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        logger.warning("scratch folder %s stays: %s", path, error.strerror)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob("worker-*"):
        try:
            with _take_lock(folder / _LOCK):
                logger.warning("removing %s of a worker that died", folder)
                remove_tree(folder)
        except BlockingIOError:
            continue  # its worker lives
        except FileNotFoundError:
            continue  # its worker has just shut down


def _take_lock(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _wait_for_lock(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
