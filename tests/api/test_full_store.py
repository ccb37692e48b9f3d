"""A full store refuses uploads, holds no partial file, and still serves and deletes its files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs.files.store import Storage
from jobs.settings import Settings
from tests.api.bodies import CONTENT_TYPE, EVALUATION, body, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem, serve
from tests.support.services import Services
from tests.support.small_disk import fill, small_disk

KIB = 1024
SUBMISSION = body(spec_part(), teacher_part())
STUDENT = b"a student" * 1000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 512 * KIB) as folder:
        yield folder


@pytest.fixture
def small(disk: Path, settings: Settings) -> Iterator[httpx.Client]:
    there = settings.model_copy(update={"storage_url": f"file://{disk}/store"})
    headers = {"Content-Type": CONTENT_TYPE}
    with (
        contextlib.contextmanager(serve)(there) as url,
        httpx.Client(base_url=url, timeout=20, headers=headers) as client,
    ):
        yield client


@pytest.fixture
def store(disk: Path) -> Storage:
    return Storage.open(f"file://{disk}/store")


@pytest.fixture
def finished(small: httpx.Client, store: Storage, service: Services, tmp_path: Path) -> str:
    job_id = str(small.post("/jobs", content=SUBMISSION).json()["id"])
    worker = PlayedWorker(service, store, tmp_path)
    worker.finish(worker.start(job_id), STUDENT)
    return job_id


def files(disk: Path) -> set[Path]:
    return {path for path in (disk / "store").rglob("*") if path.is_file()}


@pytest.mark.parametrize("order", ["small file first", "large file first"])
def test_an_upload_without_room_leaves_no_file(small: httpx.Client, disk: Path, order: str) -> None:
    large = teacher_part(b"x" * 1024 * KIB)
    parts = (EVALUATION, large, spec_part()) if order == "small file first" else (large, spec_part())
    refused = small.post("/jobs", content=body(*parts))
    assert_problem(refused, 503, "storage_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert files(disk) == set()
    assert small.post("/jobs", content=SUBMISSION).status_code == 202


def test_a_full_store_serves_and_deletes_its_files(
    small: httpx.Client, disk: Path, finished: str, settings: Settings
) -> None:
    ballast = fill(disk)
    assert_problem(small.post("/jobs", content=SUBMISSION), 503, "storage_full")
    ready = small.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["storage"]["detail"].startswith("full")
    assert "nayer_storage_free_bytes 0.0" in small.get("/metrics").text
    assert small.get(f"/jobs/{finished}/student").content == STUDENT
    assert small.delete(f"/jobs/{finished}").status_code == 204
    ballast.unlink()
    assert small.get("/readyz").json()["checks"]["storage"]["detail"] is None


def test_upkeep_makes_room_in_a_store_that_is_full(
    small: httpx.Client, disk: Path, finished: str, store: Storage, service: Services
) -> None:
    fill(disk)
    swept = service.upkeep.sweep(store, grace_seconds=-1)
    assert swept.removed_keys, "uploads and inputs of the job that has ended"
    assert small.get(f"/jobs/{finished}/student").content == STUDENT
    assert small.post("/jobs", content=SUBMISSION).status_code == 202
