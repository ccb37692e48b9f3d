"""The object store: a folder and a real S3 server must behave alike."""

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.errors import FileCorrupt, FileMissing, FileTooLarge, ServiceUnavailable, StorageFull
from jobs.files.bodies import PIECE_BYTES
from jobs.files.store import Storage
from jobs.values.files import StoredFile
from tests.support.seaweedfs import EmbeddedSeaweed
from tests.support.small_disk import small_disk

# Nothing, less than a piece, exactly one, just over one, and several.
SIZES = [0, 1000, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 12_345]


@pytest.fixture(scope="module", params=["folder", "seaweedfs"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    if request.param == "folder":
        return Storage.open(f"file://{tmp_path_factory.mktemp('store') / 'made when missing'}")
    server: EmbeddedSeaweed = request.getfixturevalue("seaweedfs")
    return Storage.open(f"{server.url}/storage-tests", server.options)


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def in_pieces(body: bytes, size: int = 65_537) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def collect(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[Storage, Path]]:
    """A store with a file of 1000 bytes and room for a few hundred more kilobytes."""
    with small_disk(tmp_path / "small", 512 * 1024) as folder:
        store = Storage.open(f"file://{folder}")
        store.put_stream([some_bytes(1000)], "artifacts/before")
        yield store, folder


@pytest.mark.parametrize("size", [2 * 2**20, PIECE_BYTES + 2**20])
def test_a_full_disk_is_reported_and_its_files_stay(full: tuple[Storage, Path], size: int) -> None:
    store, folder = full
    with pytest.raises(StorageFull, match="no room"):
        store.put_stream([some_bytes(size)], "artifacts/large")
    with pytest.raises(StorageFull):
        asyncio.run(store.put_async("uploads/large", in_pieces(some_bytes(size)), max_bytes=2**30))
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["before"]
    assert b"".join(store.open_range("artifacts/before")) == some_bytes(1000)
    store.put_stream([some_bytes(1000)], "artifacts/after")
    store.delete("artifacts/before")


@pytest.mark.parametrize(
    ("number", "error_type"), [(errno.ENOSPC, StorageFull), (errno.EIO, ServiceUnavailable)]
)
def test_a_disk_may_fail_only_when_a_file_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error_type: type[ServiceUnavailable]
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    store = Storage.open(f"file://{tmp_path}")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error_type) as failure:
        store.put_stream([b"body"], "artifacts/a")
    assert type(failure.value) is error_type
    with pytest.raises(error_type):
        asyncio.run(store.put_async("uploads/b", in_pieces(b"body"), max_bytes=10))
    assert list(store.list()) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_read_as_it_was_stored(store: Storage, tmp_path: Path, size: int) -> None:
    body = some_bytes(size)
    (tmp_path / "sent").write_bytes(body)

    file = store.put_file(tmp_path / "sent", f"uploads/{size}")
    store.get_to_file(file, tmp_path / "fetched")

    assert file == StoredFile(f"uploads/{size}", hashlib.sha256(body).hexdigest(), size)
    assert (tmp_path / "fetched").read_bytes() == body


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_is_read_as_it_was_stored(store: Storage, size: int) -> None:
    body = some_bytes(size)

    file = asyncio.run(store.put_async(f"uploads/async-{size}", in_pieces(body), max_bytes=max(size, 1)))
    content = asyncio.run(collect(store.stream_async(file.key)))

    assert (file.sha256, file.bytes) == (hashlib.sha256(body).hexdigest(), size)
    assert content == body


@pytest.mark.parametrize("limit", [10, PIECE_BYTES + 10])
def test_an_upload_over_the_limit_leaves_no_file(store: Storage, limit: int) -> None:
    with pytest.raises(FileTooLarge) as failure:
        asyncio.run(store.put_async("uploads/large", in_pieces(some_bytes(limit + 1)), max_bytes=limit))
    assert failure.value.limit_bytes == limit
    assert not store.exists("uploads/large")


@pytest.mark.parametrize("after_bytes", [1000, PIECE_BYTES + 1000])
def test_a_client_that_hangs_up_leaves_nothing(store: Storage, after_bytes: int) -> None:
    class HungUpError(Exception): ...

    async def breaking_off() -> AsyncIterator[bytes]:
        async for piece in in_pieces(some_bytes(after_bytes)):
            yield piece
        raise HungUpError

    with pytest.raises(HungUpError):
        asyncio.run(store.put_async("uploads/broken", breaking_off(), max_bytes=2**30))
    assert not store.exists("uploads/broken")


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 1), (10, 20), (PIECE_BYTES - 3, PIECE_BYTES + 3), (PIECE_BYTES, None), (5, 5)],
)
def test_a_range_is_cut_exactly(store: Storage, start: int, end: int | None) -> None:
    body = some_bytes(PIECE_BYTES + 77)
    store.put_stream([body], "artifacts/range")

    assert b"".join(store.open_range("artifacts/range", start, end)) == body[start:end]
    assert asyncio.run(collect(store.stream_async("artifacts/range", start, end))) == body[start:end]


def test_an_open_file_can_be_stored(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\n" * 1000)
    with (tmp_path / "f").open("rb") as file:
        assert store.put_stream(file, "inputs/file").bytes == 1000


@pytest.mark.parametrize("stored_bytes", [b"", b"flipped", b"what was sent and more"])
def test_bytes_that_differ_from_the_row_are_refused(
    store: Storage, tmp_path: Path, stored_bytes: bytes
) -> None:
    file = store.put_stream([b"what was sent"], "inputs/corrupt")
    store.put_stream([stored_bytes], "inputs/corrupt")

    with pytest.raises(FileCorrupt):
        store.get_to_file(file, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_missing_file_is_reported(store: Storage, tmp_path: Path) -> None:
    missing = StoredFile("inputs/none", "0" * 64, 1)
    with pytest.raises(FileMissing, match="inputs/none"):
        store.get_to_file(missing, tmp_path / "fetched")
    with pytest.raises(FileMissing):
        store.open_range("inputs/none")
    with pytest.raises(FileMissing):
        asyncio.run(collect(store.stream_async("inputs/none")))
    assert not store.exists("inputs/none")
    assert not (tmp_path / "fetched").exists()
    store.delete("inputs/none")


def test_the_same_content_published_twice_is_two_files(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"student")
    first, second = (store.publish(tmp_path / "f", "artifacts") for _ in range(2))

    assert first.key != second.key
    assert first.sha256 == second.sha256
    assert first.key.startswith(f"artifacts/{first.sha256}")
    store.delete(first.key)
    assert store.exists(second.key)


def test_a_listing_has_key_length_and_age(store: Storage) -> None:
    before = store.now()
    store.put_stream([b"12345"], "listed/a/b")

    (entry,) = store.list("listed")
    assert (entry.key, entry.bytes) == ("listed/a/b", 5)
    assert before - timedelta(seconds=1) <= entry.modified_at <= store.now() + timedelta(seconds=1)
    assert "listed/a/b" in {entry.key for entry in store.list()}


def test_a_check_leaves_nothing(store: Storage) -> None:
    assert store.check() > 0
    assert list(store.list("checks")) == []


def test_the_partial_file_of_a_killed_writer_is_removed(tmp_path: Path) -> None:
    store = Storage.open(f"file://{tmp_path}")
    store.put_stream([b"whole"], "uploads/whole")
    (tmp_path / "uploads" / "half#1").write_bytes(b"hal")
    os.utime(tmp_path / "uploads" / "half#1", (0, 0))
    (tmp_path / "uploads" / "young#1").write_bytes(b"you")

    assert store.remove_partial_files(store.now() - timedelta(hours=1)) == 1
    assert sorted(path.name for path in (tmp_path / "uploads").iterdir()) == ["whole", "young#1"]


@pytest.fixture
def away(seaweedfs: EmbeddedSeaweed) -> Storage:
    """A bucket whose server is not there."""
    nobody = {**seaweedfs.options, "endpoint": "http://127.0.0.1:9"}
    return Storage.open("s3://nayer-test", nobody)


def test_a_store_that_does_not_answer_is_reported(away: Storage) -> None:
    with pytest.raises(ServiceUnavailable) as failure:
        away.check()
    assert failure.value.part == "storage"
    assert "127.0.0.1" not in failure.value.message


def test_an_error_about_credentials_does_not_repeat_them(seaweedfs: EmbeddedSeaweed) -> None:
    store = Storage.open(seaweedfs.url, {**seaweedfs.options, "secret_access_key": "not-the-secret"})
    with pytest.raises(ServiceUnavailable, match="storage") as failure:
        store.check()
    assert "not-the-secret" not in str(failure.value)


def test_a_bucket_is_found_by_the_variables_of_the_environment(
    seaweedfs: EmbeddedSeaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    assert Storage.open(seaweedfs.url).check() > 0


@pytest.mark.parametrize("url", ["file://relative/folder", "s3://", "gs://bucket", "/folder", "http://x/y"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="file:///absolute/folder or s3://bucket"):
        Storage.open(url)
