"""A kind of job that is one entry and its flows works in the whole service."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cli.local.embedded import EmbeddedPostgres
from tests.integration.conftest import Digits, Stack, running_stack
from tests.support.serving import wait_until


@pytest.fixture(scope="module")
def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("census")
    with running_stack(
        postgres, folder, api="tests.integration.census.api", worker="tests.integration.census.worker"
    ) as stack:
        yield stack


def submit(stack: Stack, digits: Digits, *, path: str = "/jobs/census", seconds: float = 0) -> dict[str, Any]:
    spec = json.dumps({**digits.spec, "metadata": {"seconds": str(seconds)}})
    answer = stack.http.post(path, files={"spec": (None, spec), "teacher": ("t", digits.teacher_file)})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def status(stack: Stack, job_id: str) -> str:
    return str(stack.http.get(f"/jobs/{job_id}").json()["status"])


def test_a_job_of_a_second_kind_succeeds_with_its_artifact(stack: Stack, digits: Digits) -> None:
    job = submit(stack, digits)
    assert (job["kind"], job["dry_run"]) == ("census", False)
    ended = stack.follow(job["id"])
    assert ended["status"] == "succeeded", (ended["error"], stack.log.read_text()[-4000:])
    tensors = len(digits.teacher.state_dict())
    counted = stack.http.get(f"/jobs/{job['id']}/artifacts/census.json", follow_redirects=True)
    assert counted.json() == {"tensors": tensors}
    assert ended["metrics"]["latest"]["tensors"] == tensors
    phases = [event["data"]["status"] for event in _statuses(stack, job["id"])]
    assert phases == ["validating", "queued", "running", "succeeded"]


def test_it_is_paused_resumed_and_cancelled(stack: Stack, digits: Digits) -> None:
    job_id = submit(stack, digits, seconds=60)["id"]
    wait_until(lambda: status(stack, job_id) == "running", 60, "the job runs")
    stack.http.post(f"/jobs/{job_id}/pause")
    wait_until(lambda: status(stack, job_id) == "paused", 10, "the job is paused")
    stack.http.post(f"/jobs/{job_id}/resume")
    wait_until(lambda: status(stack, job_id) == "running", 30, "the job runs again")
    stack.http.post(f"/jobs/{job_id}/cancel")
    assert stack.follow(job_id, seconds=10)["status"] == "cancelled"


def test_a_job_of_higher_priority_is_taken_first(stack: Stack, digits: Digits) -> None:
    """The distiller is busy while both wait."""
    busy = submit(stack, digits, seconds=60)["id"]
    wait_until(lambda: status(stack, busy) == "running", 60, "the job runs")
    ordinary = submit(stack, digits, path="/jobs")["id"]
    wait_until(lambda: status(stack, ordinary) == "queued", 60, "the first one waits")
    urgent = submit(stack, digits)["id"]
    wait_until(lambda: status(stack, urgent) == "queued", 60, "the second one waits")
    places = [stack.http.get(f"/jobs/{job_id}").json()["queue_position"] for job_id in (ordinary, urgent)]
    assert places == [2, 1]
    for job_id in (ordinary, busy):
        stack.http.post(f"/jobs/{job_id}/cancel")
    assert stack.follow(urgent)["status"] == "succeeded"


def test_the_kind_says_which_parts_a_request_has(stack: Stack, digits: Digits) -> None:
    spec = (None, json.dumps(digits.spec))
    files = {"spec": spec, "teacher": ("t", digits.teacher_file), "evaluation": ("e", b"x")}
    refused = stack.http.post("/jobs/census", files=files)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_part")
    operation = stack.http.get("/openapi.json").json()["paths"]["/jobs/census"]["post"]
    body = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert (operation["operationId"], set(body["properties"])) == ("createCensus", {"spec", "teacher"})


def _statuses(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    events = stack.http.get(f"/jobs/{job_id}/events").json()["data"]
    return [event for event in events if event["type"] == "status"]
