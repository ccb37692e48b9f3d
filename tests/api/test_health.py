import contextlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.settings import Settings
from tests.api.bodies import CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem, serve

NOWHERE = "127.0.0.1:1"
ID = "0" * 32  # well formed: a malformed one is nobody's, and needs no database to say so


def test_a_process_that_answers_is_alive(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_a_service_with_all_its_parts_is_ready(client: httpx.Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200, response.text
    assert response.json()["ready"] is True
    checks = response.json()["checks"]
    assert set(checks) == {"database", "migrations", "broker", "storage"}
    assert all(check["ok"] and check["latency_ms"] >= 0 for check in checks.values())


def test_the_version_is_that_of_the_package(client: httpx.Client) -> None:
    assert client.get("/version").json()["version"] == version("nayer")


def test_prometheus_reads_the_numbers(
    submit: Callable[..., str], client: httpx.Client, worker: PlayedWorker
) -> None:
    worker.finish(worker.start(submit()))
    submit()
    client.get("/jobs/nothing")
    client.get("/no/such/path")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["nayer_database_up",] == 1
    assert samples["nayer_jobs", "succeeded"] >= 1
    assert samples["nayer_jobs", "validating"] >= 1
    assert samples["nayer_jobs", "running"] == 0
    assert samples["nayer_queue_oldest_seconds", "inspect"] >= 0
    assert samples["nayer_leases_expired",] == 0
    assert samples["nayer_http_requests_total", "POST", "/jobs", "202"] >= 2
    assert samples["nayer_http_requests_total", "GET", "/jobs/{job_id}", "404"] >= 1
    assert samples["nayer_http_requests_total", "GET", "unmatched", "404"] >= 1
    assert "/jobs/nothing" not in response.text


class TestAway:
    """What a client sees while a part of the service is away: 503 and when to come back, never 500."""

    @pytest.fixture
    def without_database(self, settings: Settings) -> object:
        away = settings.model_copy(update={"database_url": f"postgresql://nayer:secret@{NOWHERE}/nayer"})
        with contextlib.contextmanager(serve)(away) as url, httpx.Client(base_url=url, timeout=20) as client:
            yield client

    @pytest.mark.parametrize("path", ["", f"/{ID}", f"/{ID}/events", f"/{ID}/metrics", f"/{ID}/student"])
    def test_the_database(self, path: str, without_database: httpx.Client) -> None:
        response = without_database.get(f"/jobs{path}")
        problem = assert_problem(response, 503, "service_unavailable")
        assert int(response.headers["retry-after"]) >= 1
        assert "secret" not in str(problem)
        stream = without_database.get(f"/jobs/{ID}/events", headers={"Accept": "text/event-stream"})
        assert_problem(stream, 503, "service_unavailable")

    def test_readiness_says_which_part(self, without_database: httpx.Client) -> None:
        response = without_database.get("/readyz")
        assert response.status_code == 503
        checks = response.json()["checks"]
        assert {name for name, check in checks.items() if check["ok"]} == {"broker", "storage"}
        assert without_database.get("/healthz").status_code == 200
        assert "nayer_database_up 0.0" in without_database.get("/metrics").text
        assert "secret" not in response.text

    def test_the_store(self, settings: Settings, tmp_path: Path) -> None:
        folder = tmp_path / "store"
        away = settings.model_copy(update={"storage_url": f"file://{folder}"})
        with contextlib.contextmanager(serve)(away) as url, httpx.Client(base_url=url, timeout=20) as client:
            folder.rmdir()
            folder.write_bytes(b"a file where the folder was")
            content = body(spec_part(), teacher_part())
            response = client.post("/jobs", content=content, headers={"Content-Type": CONTENT_TYPE})
            assert_problem(response, 503, "service_unavailable")
            checks = client.get("/readyz").json()["checks"]
            assert {name for name, check in checks.items() if not check["ok"]} == {"storage"}


def test_the_edge_starts_without_torch() -> None:
    program = "import sys, api.main; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
