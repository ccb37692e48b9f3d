"""Errors of a disk that takes no more data: neither a bug nor a fault of the request."""

import errno
import re
from types import MappingProxyType

_TROUBLES = MappingProxyType(
    {
        errno.ENOSPC: "is full",
        errno.EDQUOT: "has no quota left",
        errno.EIO: "is broken",
        errno.EROFS: "can only be read",
    }
)
_NUMBER = re.compile(r"\(os error (\d+)\)")  # the form in libraries written in Rust


def disk_trouble(error: BaseException) -> str | None:
    """Say what is wrong with the disk if that caused the error; else None."""
    if isinstance(error, OSError):
        return _TROUBLES.get(error.errno or 0)
    match = _NUMBER.search(str(error))
    return None if match is None else _TROUBLES.get(int(match[1]))
