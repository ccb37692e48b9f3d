"""Safety from power cuts and killed writers, and free space, for a folder: a bucket has these built in."""

import errno
import os
from datetime import datetime
from pathlib import Path

from jobs.errors import ServiceUnavailable, StorageFull

# The errors of a full file system or a full quota.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sync(path: Path) -> None:
    """Make a file that was just written safe from a power cut.

    Raises:
        ServiceUnavailable: the disk could not write it, which it may report only now; no file is left.
    """
    try:
        for place in (path, path.parent):
            _fsync(place)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in FULL:
            raise StorageFull from error
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise ServiceUnavailable("storage", name) from error


def remove_partial_files(folder: Path, before: datetime) -> int:
    """Remove partial files that killed writers left before this time; returns how many."""
    partial_files = [path for path in folder.rglob("*#*") if path.is_file()]
    old = [path for path in partial_files if path.stat().st_mtime < before.timestamp()]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def free_bytes(folder: Path) -> int | None:
    """Measure the free bytes of the folder's disk; None if the disk does not answer."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _fsync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
