"""The same edge over S3: what a folder does by itself, a bucket must be asked for."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs.service import JobService
from jobs.settings import Settings
from jobs.storage import Storage
from tests.api.bodies import CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import MIB, PlayedWorker, assert_problem, serve
from tests.support.seaweedfs import EmbeddedSeaweed

TEACHER = random.Random(1).randbytes(12 * MIB)  # several parts of an S3 upload


@pytest.fixture
def bucket(seaweedfs: EmbeddedSeaweed) -> Storage:
    return Storage.open(seaweedfs.url, seaweedfs.options)


@pytest.fixture
def on_s3(
    settings: Settings, seaweedfs: EmbeddedSeaweed, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    changed = {"storage_url": seaweedfs.url, "max_teacher_bytes": 2 * len(TEACHER)}
    headers = {"Content-Type": CONTENT_TYPE}
    with (
        contextlib.contextmanager(serve)(settings.model_copy(update=changed)) as url,
        httpx.Client(base_url=url, timeout=30, headers=headers) as client,
    ):
        yield client


def test_a_job_s_files_pass_through_a_bucket(
    on_s3: httpx.Client, bucket: Storage, service: JobService, tmp_path: Path
) -> None:
    job_id = on_s3.post("/jobs", content=body(spec_part(), teacher_part(TEACHER))).json()["id"]
    teacher = service.get(job_id).teacher
    assert teacher.sha256 == hashlib.sha256(TEACHER).hexdigest()
    bucket.get_to_file(teacher, tmp_path / "teacher")
    worker = PlayedWorker(service, bucket, tmp_path)
    worker.finish(worker.start(job_id), TEACHER)
    assert on_s3.get(f"/jobs/{job_id}/student").content == TEACHER
    part = on_s3.get(f"/jobs/{job_id}/student", headers={"Range": f"bytes={11 * MIB}-"})
    assert (part.status_code, part.content) == (206, TEACHER[11 * MIB :])
    assert on_s3.get("/readyz").json()["checks"]["storage"]["ok"]
    assert on_s3.delete(f"/jobs/{job_id}").status_code == 204
    assert not bucket.exists(teacher.key)


def test_a_refused_upload_leaves_nothing_in_a_bucket(on_s3: httpx.Client, bucket: Storage) -> None:
    before = {item.key for item in bucket.list("uploads")}
    refused = on_s3.post("/jobs", content=body(teacher_part(TEACHER + TEACHER + b"!"), spec_part()))
    assert_problem(refused, 413, "payload_too_large")
    late = on_s3.post("/jobs", content=body(teacher_part(TEACHER), spec_part({})))
    assert_problem(late, 422, "invalid_spec")
    cut = on_s3.post("/jobs", content=body(spec_part(), teacher_part(TEACHER))[:-1000])
    assert_problem(cut, 400, "truncated_body")
    assert {item.key for item in bucket.list("uploads")} == before
