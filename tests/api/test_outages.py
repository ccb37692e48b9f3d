"""Answers during an outage of one part of the service: 503 with Retry-After, never 500."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from api.main import create_app
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.api.bodies import CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem, serve
from tests.support.services import Services

NOWHERE = "127.0.0.1:1"
ID = "0" * 32  # well formed: a malformed id is answered with 404 without the database
MULTIPART = {"Content-Type": CONTENT_TYPE}
SUBMISSION = body(spec_part(), teacher_part())
EVENT_STREAM = {"Accept": "text/event-stream"}

# Answered from this process alone.
INDEPENDENT = {"/healthz", "/version", "/architectures", "/presets", "/schema", "/openapi.json", "/metrics"}


@contextlib.contextmanager
def elsewhere(settings: Settings, **changed: object) -> Iterator[httpx.Client]:
    with (
        contextlib.contextmanager(serve)(settings.model_copy(update=changed)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def calls(settings: Settings) -> list[tuple[str, str]]:
    """Every method and path, with a well-formed id."""
    return [
        (method, route.path.replace("{job_id}", ID).replace("{delivery_id}", f"msg_{ID}"))
        for route in iter_route_contexts(create_app(settings).routes)
        if route.path is not None
        for method in sorted(route.methods or ())
    ]


def assert_unavailable(response: httpx.Response) -> None:
    assert_problem(response, 503, "service_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert "secret" not in response.text


def test_without_the_database_every_call_answers_and_none_with_500(settings: Settings) -> None:
    url = f"postgresql://nayer:secret@{NOWHERE}/nayer"
    every = calls(settings)
    assert len(every) > 20
    with elsewhere(settings, database_url=url) as client:
        for method, path in every:
            upload = method == "POST" and path in ("/jobs", "/jobs/validate")
            path = path.replace("{name}", "student.safetensors")
            answer = client.request(
                method,
                path,
                content=SUBMISSION if upload else None,
                headers=MULTIPART if upload else {},
            )
            if path in INDEPENDENT:
                assert answer.status_code == 200, path
            elif path == "/readyz" or method == "HEAD":
                assert (answer.status_code, "retry-after" in answer.headers) == (503, True), path
            else:
                assert_unavailable(answer)
        assert_unavailable(client.get(f"/jobs/{ID}/events", headers=EVENT_STREAM))
        assert "nayer_database_up 0.0" in client.get("/metrics").text


def test_readiness_says_which_part_is_away(settings: Settings) -> None:
    url = f"postgresql://nayer:secret@{NOWHERE}/nayer"
    with elsewhere(settings, database_url=url) as client:
        response = client.get("/readyz")
        checks = response.json()["checks"]
        assert {name for name, check in checks.items() if check["ok"]} == {"broker", "storage"}
        assert "secret" not in response.text


def test_without_the_broker_jobs_are_accepted_and_wait(settings: Settings, service: Services) -> None:
    with elsewhere(settings, redis_url=f"redis://:secret@{NOWHERE}/0") as client:
        response = client.post("/jobs", content=SUBMISSION, headers=MULTIPART)
        assert response.status_code == 202, response.text
        job = service.clients.get(response.json()["id"])
        assert job.status is JobStatus.VALIDATING
        ready = client.get("/readyz")
        assert (ready.status_code, "retry-after" in ready.headers) == (503, True)
        assert [name for name, check in ready.json()["checks"].items() if not check["ok"]] == ["broker"]
        assert client.post(f"/jobs/{job.id}/cancel").json()["status"] == "cancelled"


class TestStore:
    """Without the store, files cannot be uploaded or downloaded; all rows can be read."""

    @pytest.fixture(params=["folder", "bucket"])
    def without(
        self,
        request: pytest.FixtureRequest,
        settings: Settings,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[httpx.Client]:
        folder = tmp_path / "store"
        if request.param == "bucket":
            access = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "x"}
            for name, value in {"AWS_ENDPOINT_URL": f"http://{NOWHERE}", **access}.items():
                monkeypatch.setenv(name, value)
        url = f"file://{folder}" if request.param == "folder" else "s3://nothing"
        with elsewhere(settings, storage_url=url) as client:
            if request.param == "folder":
                folder.rmdir()
                folder.write_bytes(b"a file where the folder was")
            yield client

    def test_an_outage_is_503_where_a_file_is_needed(
        self, without: httpx.Client, client: httpx.Client, worker: PlayedWorker
    ) -> None:
        job_id = client.post("/jobs", content=SUBMISSION, headers=MULTIPART).json()["id"]
        worker.finish(worker.start(job_id))
        assert_unavailable(without.post("/jobs", content=SUBMISSION, headers=MULTIPART))
        assert_unavailable(without.get(f"/jobs/{job_id}/student"))
        assert_unavailable(without.get(f"/jobs/{job_id}/student", headers={"Range": "bytes=0-3"}))
        ready = without.get("/readyz")
        assert (ready.status_code, "retry-after" in ready.headers) == (503, True)
        checks = ready.json()["checks"]
        assert {name for name, check in checks.items() if not check["ok"]} == {"storage"}
        for path in ("", "/artifacts", "/events", "/metrics"):
            assert without.get(f"/jobs/{job_id}{path}").status_code == 200
        assert without.delete(f"/jobs/{job_id}").status_code == 204
