"""Files of jobs in the object store: a folder (`file://`) or a bucket (`s3://`), through obstore.

Keys are made here or by a caller of ours, never by a client:

    uploads/<uuid>         what a client sent, in quarantine
    inputs/<sha256>...     canonical files made by `inspect` and `embed`
    artifacts/<sha256>...  what a client may download
    embeddings/<sha256>... label-text embeddings, shared by jobs with the same labels

A file counts from the moment a row names it; what no row names is swept away. The sync methods are
for workers and the command line; the async ones for the API's event loop only (a process that used
obstore's async side and exits at once is aborted by its runtime). Open a store after a fork.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self

from jobs.records import StoredFile


@dataclass(frozen=True)
class StoredObject:
    """What a listing tells about a file: its key, length, and when the store took it."""

    key: str
    bytes: int
    modified_at: datetime


class Storage:
    """An object store. Every method raises `ServiceUnavailable` when the store does not answer."""

    @classmethod
    def open(cls, url: str, options: Mapping[str, str] | None = None) -> Self:
        """Open a store; connects to nothing yet.

        Args:
            url: `file:///absolute/folder` (made if it is not there) or `s3://bucket[/prefix]`.
            options: for S3, in place of the `AWS_*` environment variables: access_key_id,
                secret_access_key, region, endpoint. A plain `http://` endpoint is allowed.
        """
        raise NotImplementedError

    def publish(self, path: Path, folder: str) -> StoredFile:
        """Store a file under `folder/<sha256>-<random>`: one body per publication, so that removing
        an old one can never meet a new one of the same content.
        """
        raise NotImplementedError

    def put_file(self, path: Path, key: str) -> StoredFile:
        """Store a file, hashed while it is read, in place of what lay under the key."""
        raise NotImplementedError

    def put_stream(self, chunks: Iterable[bytes] | BinaryIO, key: str) -> StoredFile:
        """Store what a stream gives, hashed on the way."""
        raise NotImplementedError

    def get_to_file(self, stored: StoredFile, path: Path) -> None:
        """Fetch a file and verify it; nothing is left at `path` when it does not match.

        Raises:
            FileMissing: the store has no such key.
            FileCorrupt: length or hash differ from what the row says.
        """
        raise NotImplementedError

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read bytes `start` to `end` (exclusive; None for the rest) in pieces.

        Raises:
            FileMissing: the store has no such key.
        """
        raise NotImplementedError

    def exists(self, key: str) -> bool:
        """Tell whether a file lies under the key."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Remove a file; one that is not there is fine."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Go through the files whose key lies in the folder `prefix`; all of them by default."""
        raise NotImplementedError

    def check(self) -> float:
        """Write, read and remove a small file; seconds it took."""
        raise NotImplementedError

    async def put_async(self, key: str, chunks: AsyncIterator[bytes], max_bytes: int) -> StoredFile:
        """Store an upload while it comes in, hashed and counted on the way; the API's event loop only.

        An exception of `chunks` (a client that hung up) comes out as it is, and no file is left.

        Raises:
            FileTooLarge: more than `max_bytes` came; no file is left.
        """
        raise NotImplementedError

    def stream_async(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Read bytes `start` to `end` (exclusive; None for the rest) in pieces; the event loop only.

        Raises:
            FileMissing: the store has no such key; raised before the first piece.
        """
        raise NotImplementedError
