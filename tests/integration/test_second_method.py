"""A method that is one class and one entry works in the whole service: it ends, resumes and is cancelled."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cli.local.embedded import EmbeddedPostgres
from tests.integration.conftest import Digits, Stack, running_stack
from tests.support.serving import wait_until

LONG = {"epochs": 400, "student_steps": 5}


@pytest.fixture(scope="module")
def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("noise")
    with running_stack(
        postgres, folder, api="tests.integration.noise.api", worker="tests.integration.noise.worker"
    ) as stack:
        yield stack


def submit(stack: Stack, digits: Digits, config: dict[str, Any]) -> str:
    spec = {**digits.spec, "method": "noise", "student": {"architecture": "wrn_10_1"}, "config": config}
    spec |= {"preset": "auto"}
    job_id: str = stack.submit(spec, teacher=digits.teacher_file)["id"]
    return job_id


def job(stack: Stack, job_id: str) -> dict[str, Any]:
    body: dict[str, Any] = stack.http.get(f"/jobs/{job_id}").json()
    return body


def student_of(stack: Stack, job_id: str) -> str:
    final_job = stack.follow(job_id, seconds=300)
    assert final_job["status"] == "succeeded", (final_job["error"], stack.log.read_text()[-4000:])
    return str(stack.http.head(f"/jobs/{job_id}/student").headers["ETag"])


def test_a_second_method_succeeds_with_all_artifacts(stack: Stack, digits: Digits) -> None:
    job_id = submit(stack, digits, {})
    student_of(stack, job_id)
    resolved = job(stack, job_id)["resolved"]
    assert (resolved["method"], resolved["preset"], resolved["config"]["epochs"]) == ("noise", "short", 3)
    card = stack.http.get(f"/jobs/{job_id}/artifacts/model_card.json").json()
    assert card["method"]["name"] == "noise"
    assert "agreement_on_synthetic" in card["metrics"]


def test_a_paused_and_resumed_run_gives_the_same_student(stack: Stack, digits: Digits) -> None:
    config = {"epochs": 200, "student_steps": 5, "student_batch_size": 8}
    first = student_of(stack, submit(stack, digits, config))
    # Only now: of two jobs at once, the one that is inspected sooner runs first.
    paused = submit(stack, digits, config)
    wait_until(lambda: (job(stack, paused)["progress"].get("fraction") or 0) > 0, 60, "the run has begun")
    stack.http.post(f"/jobs/{paused}/pause")
    wait_until(lambda: job(stack, paused)["status"] == "paused", 60, "the job is paused")
    stack.http.post(f"/jobs/{paused}/resume")
    assert student_of(stack, paused) == first


def test_a_run_of_a_second_method_is_cancelled(stack: Stack, digits: Digits) -> None:
    job_id = submit(stack, digits, LONG)
    wait_until(lambda: job(stack, job_id)["status"] == "running", 60, "the job runs")
    stack.http.post(f"/jobs/{job_id}/cancel")
    assert stack.follow(job_id)["status"] == "cancelled"


def test_an_unknown_method_is_refused_with_the_nearest_name(stack: Stack, digits: Digits) -> None:
    spec = {**digits.spec, "method": "noize"}
    files = {"spec": (None, json.dumps(spec), "application/json"), "teacher": ("t", b"x")}
    refused = stack.http.post("/jobs", files=files)
    assert refused.status_code == 422
    assert "noise" in refused.text
