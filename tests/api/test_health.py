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


def test_the_edge_starts_without_torch() -> None:
    program = "import sys, api.main; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
