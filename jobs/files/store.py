"""Files of jobs in the object store: a folder (`file://`) or a bucket (`s3://`), through obstore.

Keys are made here or by a caller of ours, never by a client:

    uploads/<uuid>         files from clients, in quarantine
    inputs/<sha256>...     canonical files made by `inspect` and `embed`
    artifacts/<sha256>...  files that clients may download
    banks/<sha256>...      warm-ups, shared by jobs on the same teacher
    embeddings/<sha256>... label-text embeddings, shared by jobs with the same labels

A file is in use from the moment a row names it; the sweep removes files that no row names. Workers and
the command line use the sync methods, and only the API's event loop uses the async ones: obstore's runtime
aborts a process that used its async functions and exits at once. Open a store after a fork.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store

from jobs.errors import FileCorrupt, FileMissing, ServiceUnavailable, StorageFull
from jobs.files import folders
from jobs.files.bodies import PIECE_BYTES, Body, gather, gather_async, pieces_of
from jobs.files.buckets import open_bucket, sign_download
from jobs.values.files import StoredFile


@dataclass(frozen=True)
class StoredObject:
    """An entry of a listing: key, length, and when the store took the file."""

    key: str
    bytes: int
    modified_at: datetime


class Storage:
    """An object store. Every method raises `ServiceUnavailable` when the store does not answer, and its
    subclass `StorageFull` when the store has no room for a file.

    Args:
        store: the place of the files.
        probe: the same place with short time-outs and no retries, for `check`.
        folder: the folder behind a `file://` store.
        public: the same place under the address that clients use, for `download_url`.
    """

    def __init__(
        self,
        store: ObjectStore,
        probe: ObjectStore,
        folder: Path | None = None,
        public: S3Store | None = None,
    ):
        self._store = store
        self._probe = probe
        self._folder = folder
        self._public = public

    @classmethod
    def open(
        cls, url: str, options: Mapping[str, str] | None = None, public_endpoint: str | None = None
    ) -> Self:
        """Open a store; connects to nothing yet.

        Args:
            url: `file:///absolute/folder` (made if it is not there) or `s3://bucket[/prefix]`.
            options: for S3, in place of the `AWS_*` environment variables: access_key_id,
                secret_access_key, region, endpoint. A plain `http://` endpoint is allowed.
            public_endpoint: the address of an S3 store for clients; None if they cannot reach it.

        Raises:
            ValueError: the URL is neither of the two.
        """
        parts = urlsplit(url)
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            folder = Path(unquote(parts.path))
            store = LocalStore(folder, mkdir=True)
            return cls(store, store, folder)
        if parts.scheme == "s3" and parts.netloc:
            prefix = parts.path.strip("/")
            patient, probe = (
                open_bucket(parts.netloc, prefix, options or {}, patient=patient) for patient in (True, False)
            )
            if public_endpoint is None:
                return cls(patient, probe)
            there = {**(options or {}), "endpoint": public_endpoint.rstrip("/")}
            return cls(patient, probe, public=open_bucket(parts.netloc, prefix, there, patient=False))
        raise ValueError("a storage URL is file:///absolute/folder or s3://bucket[/prefix]")

    def publish(self, path: Path, folder: str) -> StoredFile:
        """Store a file under `folder/<sha256>-<random>`: each publication has a key of its own, so that
        removing an old file can never remove a new one of the same content.
        """
        body = Body()
        for _ in body.passing(pieces_of(path)):
            pass
        return self.put_file(path, f"{folder}/{body.sha256}-{uuid.uuid4().hex[:12]}")

    def put_file(self, path: Path, key: str) -> StoredFile:
        """Store a file, hashed while it is read, in place of an older one under the key."""
        return self.put_stream(pieces_of(path), key)

    def put_stream(self, chunks: Iterable[bytes] | BinaryIO, key: str) -> StoredFile:
        """Store a stream, hashed on the way."""
        read = getattr(chunks, "read", None)  # a file's own iterator would go by lines
        pieces = chunks if read is None else iter(lambda: read(PIECE_BYTES), b"")
        body = Body()
        with _answering(key):
            obstore.put(self._store, key, gather(body.passing(pieces)))
        self._sync(key)
        return body.as_file(key)

    def get_to_file(self, file: StoredFile, path: Path) -> None:
        """Fetch a file and verify it; nothing is left at `path` when it does not match.

        Raises:
            FileMissing: the store has no such key.
            FileCorrupt: length or hash differ from those in the row.
        """
        body = Body()
        try:
            with path.open("wb") as copy:
                for piece in body.passing(self.open_range(file.key)):
                    copy.write(piece)
            if (body.bytes, body.sha256) != (file.bytes, file.sha256):
                raise FileCorrupt(
                    f"{file.key} holds {body.bytes} bytes with sha256 {body.sha256}, "
                    f"not {file.bytes} bytes with sha256 {file.sha256}."
                )
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read bytes `start` to `end` (exclusive; None for the rest) in pieces.

        Raises:
            FileMissing: the store has no such key; raised at once.
        """
        with _answering(key):
            size = obstore.head(self._store, key)["size"]
        return self._pieces(key, start, size if end is None else min(end, size))

    def download_url(self, key: str, seconds: float) -> str | None:
        """Sign a URL with which a client can GET the file from the store itself, for `seconds`.

        Returns None if clients cannot reach the store. Does not check that the file exists.
        """
        if self._public is None:
            return None
        with _answering(key):
            return sign_download(self._public, key, seconds)

    def exists(self, key: str) -> bool:
        """Whether the store has a file under the key."""
        try:
            with _answering(key):
                obstore.head(self._store, key)
        except FileMissing:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove a file; a missing file is no error."""
        try:
            with _answering(key):
                obstore.delete(self._store, key)
        except FileMissing:
            return

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """List the files whose key is in the folder `prefix`; all of them by default."""
        with _answering(prefix):
            for page in obstore.list(self._store, prefix or None):
                for entry in page:
                    yield StoredObject(entry["path"], entry["size"], entry["last_modified"])

    def now(self) -> datetime:
        """Read the store's own clock, by which the ages of files are computed.

        A full store, which must be swept too, cannot store the file that shows the clock. Then this is the
        time of its newest file, which is never later.
        """
        key = f"checks/{uuid.uuid4().hex}"
        try:
            with _answering(key):
                obstore.put(self._store, key, b"now")
                modified_at = obstore.head(self._store, key)["last_modified"]
        except ServiceUnavailable:
            newest = max((entry.modified_at for entry in self.list()), default=None)
            if newest is None:
                raise
            return newest
        self.delete(key)
        return modified_at

    def remove_partial_files(self, before: datetime) -> int:
        """Remove partial files that killed writers left before this time; returns how many.

        A bucket has a rule for that (expire incomplete multipart uploads); a folder has not.
        """
        return 0 if self._folder is None else folders.remove_partial_files(self._folder, before)

    def free_bytes(self) -> int | None:
        """Measure how much room is left; None where that is not known, as for a bucket."""
        return None if self._folder is None else folders.free_bytes(self._folder)

    def check(self) -> float:
        """Write, read and remove a small file, once; returns the seconds it took."""
        key, began = f"checks/{uuid.uuid4().hex}", time.perf_counter()
        with _answering(key):
            obstore.put(self._probe, key, b"check")
            obstore.get_range(self._probe, key, start=0, end=5)
            obstore.delete(self._probe, key)
        return time.perf_counter() - began

    async def put_async(self, key: str, chunks: AsyncIterator[bytes], max_bytes: int) -> StoredFile:
        """Store an upload as it arrives, hashed and counted on the way; the API's event loop only.

        An exception of `chunks` (a client that hung up) is raised as it is, and no file is left.

        Raises:
            FileTooLarge: there were more than `max_bytes`; no file is left.
        """
        body = Body(max_bytes)
        with _answering(key):
            await obstore.put_async(self._store, key, await gather_async(body.passing_async(chunks)))
        if self._folder is not None:
            await asyncio.to_thread(self._sync, key)
        return body.as_file(key)

    async def stream_async(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Read bytes `start` to `end` (exclusive; None for the rest) in pieces; the event loop only.

        Raises:
            FileMissing: the store has no such key; raised before the first piece.
        """
        with _answering(key):
            size = (await obstore.head_async(self._store, key))["size"]
        end = size if end is None else min(end, size)
        for first in range(start, end, PIECE_BYTES):
            with _answering(key):
                piece = await obstore.get_range_async(
                    self._store, key, start=first, end=min(first + PIECE_BYTES, end)
                )
            yield bytes(piece)

    def _pieces(self, key: str, start: int, end: int) -> Iterator[bytes]:
        # One short request for each piece, so that a silent store is noticed, and the request repeated.
        for first in range(start, end, PIECE_BYTES):
            with _answering(key):
                piece = obstore.get_range(self._store, key, start=first, end=min(first + PIECE_BYTES, end))
            yield bytes(piece)

    def _sync(self, key: str) -> None:
        if self._folder is not None:
            folders.sync(self._folder / key)


@contextmanager
def _answering(key: str) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileMissing(f"The store holds no file {key}.") from error
    except BaseError as error:
        if any(f"(os error {number})" in str(error) for number in folders.FULL):
            raise StorageFull from error
        raise ServiceUnavailable("storage", type(error).__name__) from error
