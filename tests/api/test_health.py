import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import PlayedWorker


def test_a_process_that_answers_is_alive(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


PATHS = [
    *("/healthz", "/readyz", "/metrics", "/version", "/presets", "/schema", "/architectures"),
    *("/openapi.json", "/jobs", "{job}", "{job}/events", "{job}/metrics", "{job}/artifacts"),
    *("{job}/artifacts/model_card.json", "{job}/student", "{job}/deliveries"),
]


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_wherever_get_does(
    path: str, submit: Callable[..., str], client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit()
    worker.finish(worker.start(job_id))
    path = path.replace("{job}", f"/jobs/{job_id}")
    got, headed = client.get(path), client.head(path)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-type"] == got.headers["content-type"]
    if path not in ("/readyz", "/metrics"):  # times are in them
        assert headed.headers["content-length"] == got.headers["content-length"]


def test_head_of_a_live_stream_ends_at_once(submit: Callable[..., str], client: httpx.Client) -> None:
    job_id = submit()
    response = client.head(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert client.get("/healthz").status_code == 200


def test_a_service_with_all_its_parts_is_ready(client: httpx.Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200, response.text
    assert response.json()["ready"] is True
    checks = response.json()["checks"]
    assert set(checks) == {"database", "migrations", "broker", "storage"}
    assert all(check["ok"] and check["latency_ms"] >= 0 for check in checks.values())


def test_the_version_is_that_of_the_package(client: httpx.Client) -> None:
    assert client.get("/version").json()["version"] == version("nayer")


@pytest.mark.parametrize(("built_with", "expected"), [("0123abc", "0123abc"), ("", None), (None, None)])
def test_the_revision_is_null_where_the_build_had_none(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, built_with: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("NAYER_REVISION", raising=False)
    if built_with is not None:
        monkeypatch.setenv("NAYER_REVISION", built_with)
    assert client.get("/version").json()["revision"] == expected


def test_the_metrics_are_prometheus_text(
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


def test_the_edge_starts_without_torch() -> None:
    program = "import sys, api.main; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
