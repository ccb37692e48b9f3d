"""Pause and resume from the command line, over a real service."""

import json
from pathlib import Path

from tests.cli.test_submit import invoke, request, status_of
from tests.support.serving import Serving, wait_until


def test_a_job_rests_and_goes_on(serving: Serving, teacher: Path, labels: Path) -> None:
    sent = invoke("submit", *request(teacher, labels, serving.url, epochs=50_000), "--detach", "--json")
    assert sent.exit_code == 0, sent.stderr
    job_id = json.loads(sent.stdout)["id"]
    wait_until(lambda: status_of(serving, job_id) == "running", 120, "the job runs")
    assert "saves its state" in invoke("pause", job_id, "--url", serving.url).stdout
    wait_until(lambda: status_of(serving, job_id) == "paused", 60, "the job rests")
    again = invoke("pause", job_id, "--url", serving.url, "--json")
    assert (again.exit_code, json.loads(again.stdout)["status"]) == (0, "paused")
    assert invoke("resume", job_id, "--url", serving.url).stdout.split() == [job_id, "queued"]
    wait_until(lambda: status_of(serving, job_id) == "running", 60, "the job goes on")
    assert invoke("cancel", job_id, "--url", serving.url).exit_code == 0
    wait_until(lambda: status_of(serving, job_id) == "cancelled", 60, "the job ends")
    refused = invoke("resume", job_id, "--url", serving.url)
    assert refused.exit_code == 2
    assert "job_not_paused" in refused.stderr
