"""Pause and resume from the command line, over a real service."""

import json
from pathlib import Path

from tests.cli.test_submit import invoke, request, status_of
from tests.support.serving import Serving, wait_until


def test_a_running_job_is_paused_and_resumed(serving: Serving, teacher: Path, labels: Path) -> None:
    submission = invoke("submit", *request(teacher, labels, serving.url, epochs=50_000), "--detach", "--json")
    assert submission.exit_code == 0, submission.stderr
    job_id = json.loads(submission.stdout)["id"]
    wait_until(lambda: status_of(serving, job_id) == "running", 120, "the job runs")
    assert "saves its state" in invoke("pause", job_id, "--url", serving.url).stdout
    wait_until(lambda: status_of(serving, job_id) == "paused", 60, "the job is paused")
    second = invoke("pause", job_id, "--url", serving.url, "--json")
    assert (second.exit_code, json.loads(second.stdout)["status"]) == (0, "paused")
    assert invoke("resume", job_id, "--url", serving.url).stdout.split() == [job_id, "queued"]
    wait_until(lambda: status_of(serving, job_id) == "running", 60, "the job runs again")
    assert invoke("cancel", job_id, "--url", serving.url).exit_code == 0
    wait_until(lambda: status_of(serving, job_id) == "cancelled", 60, "the job ends")
    refusal = invoke("resume", job_id, "--url", serving.url)
    assert refusal.exit_code == 2
    assert "job_not_paused" in refusal.stderr
