"""The API over an S3 bucket: uploads, downloads, redirects, and what a refused upload leaves."""

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from jobs.files.store import Storage
from jobs.settings import Settings
from nayer import Client
from tests.api.bodies import CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import MIB, PlayedWorker, assert_problem, serve, wait_until
from tests.support.seaweedfs import EmbeddedSeaweed
from tests.support.services import Services

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
    on_s3: httpx.Client, bucket: Storage, service: Services, tmp_path: Path
) -> None:
    job_id = on_s3.post("/jobs", content=body(spec_part(), teacher_part(TEACHER))).json()["id"]
    teacher = service.clients.get(job_id).uploads["teacher"]
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


class TestRedirects:
    """Where clients can reach the store, downloads redirect to a URL that is valid for a limited time."""

    KEY = "the key of this test"

    @pytest.fixture
    def redirecting(
        self, settings: Settings, seaweedfs: EmbeddedSeaweed, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., AbstractContextManager[httpx.Client]]:
        for name, value in seaweedfs.environment.items():
            monkeypatch.setenv(name, value)

        @contextlib.contextmanager
        def start(**changed: object) -> Iterator[httpx.Client]:
            there = {"storage_url": f"{seaweedfs.url}/a prefix", "api_key": SecretStr(self.KEY)}
            public = {"storage_public_url": seaweedfs.options["endpoint"], "max_teacher_bytes": 2**20}
            headers = {"Content-Type": CONTENT_TYPE, "Authorization": f"Bearer {self.KEY}"}
            with (
                contextlib.contextmanager(serve)(
                    settings.model_copy(update={**there, **public, **changed})
                ) as url,
                httpx.Client(base_url=url, timeout=30, headers=headers) as client,
            ):
                yield client

        return start

    @pytest.fixture
    def finish(
        self, service: Services, seaweedfs: EmbeddedSeaweed, tmp_path: Path
    ) -> Callable[[httpx.Client], str]:
        def done(client: httpx.Client) -> str:
            job_id = str(client.post("/jobs", content=body(spec_part(), teacher_part())).json()["id"])
            store = Storage.open(f"{seaweedfs.url}/a prefix", seaweedfs.options)
            worker = PlayedWorker(service, store, tmp_path)
            worker.finish(worker.start(job_id), TEACHER)
            return job_id

        return done

    def test_a_download_is_redirected_to_the_store(
        self,
        redirecting: Callable[..., AbstractContextManager[httpx.Client]],
        finish: Callable[[httpx.Client], str],
        tmp_path: Path,
    ) -> None:
        digest = hashlib.sha256(TEACHER).hexdigest()
        with redirecting() as client:
            job_id = finish(client)
            path = f"/jobs/{job_id}/student"
            redirect = client.get(path)
            assert (redirect.status_code, redirect.content) == (307, b"")
            assert redirect.headers["etag"] == f'"{digest}"'
            assert redirect.headers["repr-digest"].startswith("sha-256=:")
            assert redirect.headers["cache-control"] == "no-store"
            assert self.KEY not in redirect.headers["location"]
            assert httpx.get(redirect.headers["location"]).content == TEACHER
            part = client.get(path, headers={"Range": "bytes=5-9"}, follow_redirects=True)
            assert (part.status_code, part.content) == (206, TEACHER[5:10])
            # The service answers these itself.
            head = client.head(path)
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(TEACHER)))
            assert client.get(path, headers={"If-None-Match": f'"{digest}"'}).status_code == 304
            assert client.get(path, headers={"Range": f"bytes={len(TEACHER)}-"}).status_code == 416
            same = client.get(path, headers={"Range": "bytes=0-3", "If-Range": f'"{digest}"'})
            assert (same.status_code, same.content) == (206, TEACHER[:4])
            whole = client.get(path, params={"redirect": "false"})
            assert (whole.status_code, whole.content) == (200, TEACHER)
            with Client(str(client.base_url), self.KEY) as ours:
                assert ours.download(job_id, "student.safetensors", tmp_path / "student") == digest
            assert (tmp_path / "student").read_bytes() == TEACHER

    def test_a_redirect_is_good_for_its_time_and_for_one_file(
        self,
        redirecting: Callable[..., AbstractContextManager[httpx.Client]],
        finish: Callable[[httpx.Client], str],
        tmp_path: Path,
    ) -> None:
        with redirecting(signed_url_seconds=1.0) as client:
            job_id = finish(client)
            url = client.get(f"/jobs/{job_id}/student").headers["location"]
            path, _, query = url.partition("?")
            assert httpx.get(f"{path}x?{query}").status_code == 403
            assert httpx.get(path).status_code == 403
            assert httpx.put(url, content=b"other").status_code == 403
            wait_until(lambda: httpx.get(url).status_code == 403)
            # A client sees the same where the clock of the service is behind that of the store.
            with Client(str(client.base_url), self.KEY) as ours:
                ours.download(job_id, "student.safetensors", tmp_path / "student")


def test_a_refused_upload_leaves_nothing_in_a_bucket(on_s3: httpx.Client, bucket: Storage) -> None:
    before = {item.key for item in bucket.list("uploads")}
    refused = on_s3.post("/jobs", content=body(teacher_part(TEACHER + TEACHER + b"!"), spec_part()))
    assert_problem(refused, 413, "payload_too_large")
    late = on_s3.post("/jobs", content=body(teacher_part(TEACHER), spec_part({})))
    assert_problem(late, 422, "invalid_spec")
    truncated = on_s3.post("/jobs", content=body(spec_part(), teacher_part(TEACHER))[:-1000])
    assert_problem(truncated, 400, "truncated_body")
    assert {item.key for item in bucket.list("uploads")} == before
