"""Files as parts of an upload, with a count of the bytes that were read from them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

OnBytes = Callable[[int, int], None]  # (bytes so far, bytes in all)


class _CountingFile:
    """A file that reports the bytes of each read; httpx asks `fileno` for its length."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None]):
        self._file = file
        self._on_read = on_read

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._on_read(len(chunk))
        return chunk

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextlib.contextmanager
def open_parts(paths: Mapping[str, Path], on_bytes: OnBytes | None) -> Iterator[list[tuple[str, Any]]]:
    """Open the files as parts of a multipart body, by the name of the part; close them after.

    Args:
        paths: part name -> file.
        on_bytes: called with (bytes read, bytes of all files).
    """
    total = sum(path.stat().st_size for path in paths.values())
    count = 0

    def on_read(size: int) -> None:
        nonlocal count
        count += size
        if on_bytes:
            on_bytes(count, total)

    with contextlib.ExitStack() as stack:
        yield [
            (name, (path.name, _CountingFile(stack.enter_context(path.open("rb")), on_read)))
            for name, path in paths.items()
        ]
