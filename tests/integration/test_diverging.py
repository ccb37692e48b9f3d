"""A job that cannot but diverge, over HTTP: it is rolled back, given up, and what is left can be had."""

from safetensors.torch import load

from nayer_core.networks.registry import build
from nayer_core.running.method import require_finite
from tests.integration.conftest import INPUT_SIZE, Digits, Stack


def test_a_job_that_diverges_is_rolled_back_and_leaves_its_partial_student(
    stack: Stack, digits: Digits
) -> None:
    # A decay that grows the weights beyond all numbers within a few steps, at any learning rate.
    config = {**digits.spec["config"], "student_weight_decay": 1e6, "student_lr": 10.0, "precision": "fp32"}
    spec = {**digits.spec, "student": {"architecture": "wrn_10_1"}, "config": config}
    job = stack.follow(stack.submit(spec, teacher=digits.teacher_file)["id"])
    assert job["status"] == "failed", stack.log.read_text()[-4000:]
    assert (job["error"]["code"], job["attempt"]) == ("diverged", 1)
    assert "3 times" in job["error"]["message"]

    log = stack.http.get(f"/jobs/{job['id']}/events", params={"limit": 1000}).json()["data"]
    warnings = [event["data"]["code"] for event in log if event["type"] == "warning"]
    assert warnings.count("rolled_back") == 3

    path = f"/jobs/{job['id']}/artifacts"
    names = {artifact["name"] for artifact in stack.http.get(path).json()["data"]}
    assert {"partial_student.safetensors", "metrics.jsonl"} <= names
    weights = load(stack.http.get(f"{path}/partial_student.safetensors").content)
    build("wrn_10_1", num_classes=10, input_size=INPUT_SIZE).load_state_dict(weights)
    require_finite(weights.values())
    assert stack.http.get(f"/jobs/{job['id']}/student").status_code == 404
