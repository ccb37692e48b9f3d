"""A job that was paused in the middle, over HTTP, ends with the very bytes of one that was not."""

import time
from typing import Any

from tests.integration.conftest import Digits, Stack

# Some seconds of steps after the first numbers, so that the request to pause arrives in the middle.
CONFIG = {"epochs": 12, "student_steps": 30, "student_batch_size": 16, "synthesis_batch_size": 16}


def wait_for(stack: Stack, job_id: str, status: str) -> dict[str, Any]:
    while (job := stack.http.get(f"/jobs/{job_id}").json())["status"] != status:
        assert not job["is_terminal"], (job, stack.log.read_text()[-4000:])
        time.sleep(0.1)
    return dict(job)


def test_pause_and_resume_change_nothing_of_the_student(stack: Stack, digits: Digits) -> None:
    config = {**digits.spec["config"], **CONFIG, "precision": "fp32"}
    spec = {**digits.spec, "student": {"architecture": "wrn_10_1"}, "config": config}
    paused_id, plain_id = (stack.submit(spec, teacher=digits.teacher_file)["id"] for _ in range(2))
    while not stack.http.get(f"/jobs/{paused_id}/metrics").json()["series"]:
        assert not stack.http.get(f"/jobs/{paused_id}").json()["is_terminal"]
        time.sleep(0.1)

    response = stack.http.post(f"/jobs/{paused_id}/pause")
    assert (response.status_code, response.json()["pause_requested"]) == (200, True)
    paused = wait_for(stack, paused_id, "paused")
    assert paused["attempt"] == 1
    assert stack.http.get(paused["links"]["events"]).status_code == 200
    plain = stack.follow(plain_id)  # the worker is free for others meanwhile
    assert stack.http.post(paused["links"]["resume"]).json()["status"] == "queued"
    resumed = stack.follow(paused_id)

    assert (plain["status"], resumed["status"]) == ("succeeded", "succeeded"), resumed["error"]
    assert resumed["attempt"] == 1
    for name in ("student.safetensors", "metrics.jsonl"):
        bodies = [stack.http.get(f"/jobs/{id_}/artifacts/{name}").content for id_ in (paused_id, plain_id)]
        assert bodies[0] == bodies[1], name
    log = stack.http.get(f"/jobs/{paused_id}/events", params={"limit": 1000}).json()["data"]
    checkpoints = [event["data"] for event in log if event["type"] == "checkpoint"]
    assert checkpoints[-1] == {**checkpoints[-2], "resumed": True}
