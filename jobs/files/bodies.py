"""Streams of bytes: counted, hashed, limited, and gathered for the store."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from jobs.errors import FileTooLarge
from jobs.values.files import StoredFile

# The most that one request to the store carries; an S3 part has at least 5 MiB.
PIECE_BYTES = 5 * 2**20


class Body:
    """Counts and hashes the bytes that pass through it.

    Args:
        max_bytes: more than this raises `FileTooLarge`.
    """

    def __init__(self, max_bytes: int | None = None):
        self.bytes = 0
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of the bytes so far."""
        return self._digest.hexdigest()

    def as_file(self, key: str) -> StoredFile:
        """Describe the bytes so far as the file under `key`."""
        return StoredFile(key, self.sha256, self.bytes)

    def passing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces, and count and hash each."""
        for piece in pieces:
            self._take(piece)
            yield piece

    async def passing_async(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the pieces, and count and hash each."""
        async for piece in pieces:
            self._take(piece)
            yield piece

    def _take(self, piece: bytes) -> None:
        self.bytes += len(piece)
        if self._max_bytes is not None and self.bytes > self._max_bytes:
            raise FileTooLarge(self._max_bytes)
        self._digest.update(piece)


def pieces_of(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece."""
    with path.open("rb") as file:
        yield from iter(lambda: file.read(PIECE_BYTES), b"")


def gather(pieces: Iterable[bytes]) -> bytes | Iterator[bytes]:
    """Join a short body into one value, which needs one request to the store; a long body stays a stream."""
    remaining = iter(pieces)
    head, size = [], 0
    for piece in remaining:
        head.append(piece)
        size += len(piece)
        if size > PIECE_BYTES:
            return itertools.chain(head, remaining)
    return b"".join(head)


async def gather_async(pieces: AsyncIterator[bytes]) -> bytes | AsyncIterator[bytes]:
    """Do the same for an asynchronous stream."""
    head, size = [], 0
    async for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size > PIECE_BYTES:
            return _chain(head, pieces)
    return b"".join(head)


async def _chain(head: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in head:
        yield piece
    async for piece in rest:
        yield piece
