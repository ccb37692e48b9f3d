import base64
import contextlib
import hashlib
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
import pytest

from api.downloads import matches, requested_span
from api.problems import Problem
from jobs.settings import Settings
from tests.api.bodies import CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem, serve
from tests.support.services import Services

Submit = Callable[..., str]
STUDENT = random.Random(0).randbytes(3_000_000)
SIZE = len(STUDENT)


@pytest.fixture(scope="module")
def finished(client: httpx.Client, worker: PlayedWorker) -> str:
    content = body(spec_part(), teacher_part())
    job_id = str(client.post("/jobs", content=content, headers={"Content-Type": CONTENT_TYPE}).json()["id"])
    worker.finish(worker.start(job_id), STUDENT)
    return job_id


@pytest.fixture
def path(finished: str) -> str:
    return f"/jobs/{finished}/artifacts/student.safetensors"


def test_the_list_names_what_can_be_downloaded(finished: str, client: httpx.Client) -> None:
    artifacts = client.get(f"/jobs/{finished}/artifacts").json()["data"]
    student = next(item for item in artifacts if item["name"] == "student.safetensors")
    assert (student["bytes"], student["sha256"]) == (SIZE, hashlib.sha256(STUDENT).hexdigest())
    assert client.get(student["href"]).content == STUDENT


@pytest.mark.parametrize("short", [False, True])
def test_a_download_has_its_length_and_digest_in_headers(
    short: bool, finished: str, path: str, client: httpx.Client
) -> None:
    response = client.get(f"/jobs/{finished}/student" if short else path)
    digest = hashlib.sha256(STUDENT)
    assert response.content == STUDENT
    assert response.headers["content-length"] == str(SIZE)
    assert response.headers["etag"] == f'"{digest.hexdigest()}"'
    assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'attachment; filename="student.safetensors"'
    assert response.headers["content-type"] == "application/octet-stream"
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "repr-digest", "accept-ranges", "content-type"):
        assert head.headers[name] == response.headers[name]


@pytest.mark.parametrize(
    ("range_header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=10-{SIZE * 2}", 10, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        ("bytes= 5 - 9", 5, 10),
    ],
)
def test_a_range_is_answered_with_its_bytes(
    range_header: str, start: int, end: int, path: str, client: httpx.Client
) -> None:
    response = client.get(path, headers={"Range": range_header})
    assert response.status_code == 206
    assert response.content == STUDENT[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response.headers["content-length"] == str(end - start)
    head = client.head(path, headers={"Range": range_header})
    assert (head.status_code, head.headers["content-length"]) == (206, str(end - start))


@pytest.mark.parametrize(
    "range_header", ["bytes=5-4", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "x", ""]
)
def test_invalid_ranges_are_ignored(range_header: str, path: str, client: httpx.Client) -> None:
    response = client.get(path, headers={"Range": range_header})
    assert (response.status_code, len(response.content)) == (200, SIZE)


@pytest.mark.parametrize("range_header", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(range_header: str, path: str, client: httpx.Client) -> None:
    response = client.get(path, headers={"Range": range_header})
    assert_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{SIZE}"


def test_if_range_protects_from_joining_two_files(path: str, client: httpx.Client) -> None:
    etag = client.head(path).headers["etag"]
    same = client.get(path, headers={"Range": "bytes=0-9", "If-Range": etag})
    assert (same.status_code, len(same.content)) == (206, 10)
    for other in ('"other"', f"W/{etag}", "Sun, 22 Nov 2026 10:00:00 GMT"):
        response = client.get(path, headers={"Range": "bytes=0-9", "If-Range": other})
        assert (response.status_code, len(response.content)) == (200, SIZE)


def test_a_broken_download_can_be_continued(path: str, client: httpx.Client) -> None:
    with client.stream("GET", path) as response:
        got = next(response.iter_bytes(100_000))
    rest = client.get(
        path, headers={"Range": f"bytes={len(got)}-", "If-Range": response.headers["etag"]}
    ).content
    assert hashlib.sha256(got + rest).hexdigest() == response.headers["etag"].strip('"')


def test_a_file_that_the_client_has_is_not_sent_again(path: str, client: httpx.Client) -> None:
    etag = client.head(path).headers["etag"]
    response = client.get(path, headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")


def test_a_student_is_not_ready_before_the_job_ends(submit: Submit, client: httpx.Client) -> None:
    job_id = submit()
    assert client.get(f"/jobs/{job_id}/artifacts").json() == {"data": []}
    assert_problem(client.get(f"/jobs/{job_id}/student"), 409, "artifact_not_ready")
    client.post(f"/jobs/{job_id}/cancel")
    assert_problem(client.get(f"/jobs/{job_id}/student"), 404, "artifact_not_found")


def test_an_artifact_is_served_until_it_expires(
    finished: str, client: httpx.Client, settings: Settings, service: Services
) -> None:
    artifacts = client.get(f"/jobs/{finished}").json()["artifacts"]
    assert {item["expires_at"] for item in artifacts} == {None}
    day = settings.model_copy(update={"keep_artifacts_seconds": 86_400})
    with contextlib.contextmanager(serve)(day) as url:
        job = httpx.get(f"{url}/jobs/{finished}").json()
        (expires_at,) = {item["expires_at"] for item in job["artifacts"]}
        kept_for = datetime.fromisoformat(expires_at) - datetime.fromisoformat(job["finished_at"])
        assert kept_for == timedelta(days=1)
        assert httpx.get(f"{url}/jobs/{finished}/artifacts").json()["data"] == job["artifacts"]
        assert httpx.get(f"{url}{job['links']['student']}").content == STUDENT
    service.with_settings(keep_artifacts_seconds=86_400).upkeep.retain()
    assert "student" in client.get(f"/jobs/{finished}").json()["links"]


@pytest.mark.parametrize("name", ["samples.png", "nothing", "..%2f..%2fetc", "%00", "é"])
def test_an_unknown_artifact_is_not_found(name: str, finished: str, client: httpx.Client) -> None:
    response = client.get(f"/jobs/{finished}/artifacts/{name}")
    assert response.status_code == 404
    assert response.json()["code"] in ("artifact_not_found", "not_found")


def test_an_empty_file_has_no_range() -> None:
    assert requested_span(None, 0) is None
    with pytest.raises(Problem):
        requested_span("bytes=0-", 0)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
    ],
)
def test_if_none_match_is_compared_weakly(header: str | None, expected: bool) -> None:
    assert matches(header, '"a"') is expected
    assert matches(header, 'W/"a"') is expected
