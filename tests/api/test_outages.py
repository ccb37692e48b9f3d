"""What a client sees while a part of the service is away: 503 and when to come back, never 500."""

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
ID = "0" * 32  # well formed: a malformed one is nobody's, and needs no database to say so
MULTIPART = {"Content-Type": CONTENT_TYPE}
SUBMISSION = body(spec_part(), teacher_part())
EVENT_STREAM = {"Accept": "text/event-stream"}

# What is told from this process alone.
INDEPENDENT = {"/healthz", "/version", "/architectures", "/presets", "/schema", "/openapi.json", "/metrics"}


@contextlib.contextmanager
def elsewhere(settings: Settings, **changed: object) -> Iterator[httpx.Client]:
    with (
        contextlib.contextmanager(serve)(settings.model_copy(update=changed)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def calls(settings: Settings) -> list[tuple[str, str]]:
    """Every method and path there is, with an id that could be."""
    return [
        (method, route.path.replace("{job_id}", ID).replace("{delivery_id}", f"msg_{ID}"))
        for route in iter_route_contexts(create_app(settings).routes)
        if route.path is not None
        for method in sorted(route.methods or ())
    ]


def told_to_come_back(response: httpx.Response) -> None:
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
                told_to_come_back(answer)
        told_to_come_back(client.get(f"/jobs/{ID}/events", headers=EVENT_STREAM))
        assert "nayer_database_up 0.0" in client.get("/metrics").text


def test_readiness_says_which_part_is_away(settings: Settings) -> None:
    url = f"postgresql://nayer:secret@{NOWHERE}/nayer"
    with elsewhere(settings, database_url=url) as client:
        response = client.get("/readyz")
        checks = response.json()["checks"]
        assert {name for name, check in checks.items() if check["ok"]} == {"broker", "storage"}
        assert "secret" not in response.text


def test_without_the_broker_jobs_are_taken_and_wait(settings: Settings, service: Services) -> None:
    with elsewhere(settings, redis_url=f"redis://:secret@{NOWHERE}/0") as client:
        made = client.post("/jobs", content=SUBMISSION, headers=MULTIPART)
        assert made.status_code == 202, made.text
        job = service.clients.get(made.json()["id"])
        assert job.status is JobStatus.VALIDATING
        ready = client.get("/readyz")
        assert (ready.status_code, "retry-after" in ready.headers) == (503, True)
        assert [name for name, check in ready.json()["checks"].items() if not check["ok"]] == ["broker"]
        assert client.post(f"/jobs/{job.id}/cancel").json()["status"] == "cancelled"


class TestStore:
    """Without the store nothing can be sent or fetched; all that is in the database can be read."""

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

    def test_it_is_told(self, without: httpx.Client, client: httpx.Client, worker: PlayedWorker) -> None:
        job_id = client.post("/jobs", content=SUBMISSION, headers=MULTIPART).json()["id"]
        worker.finish(worker.start(job_id))
        told_to_come_back(without.post("/jobs", content=SUBMISSION, headers=MULTIPART))
        told_to_come_back(without.get(f"/jobs/{job_id}/student"))
        told_to_come_back(without.get(f"/jobs/{job_id}/student", headers={"Range": "bytes=0-3"}))
        ready = without.get("/readyz")
        assert (ready.status_code, "retry-after" in ready.headers) == (503, True)
        checks = ready.json()["checks"]
        assert {name for name, check in checks.items() if not check["ok"]} == {"storage"}
        for path in ("", "/artifacts", "/events", "/metrics"):
            assert without.get(f"/jobs/{job_id}{path}").status_code == 200
        assert without.delete(f"/jobs/{job_id}").status_code == 204
