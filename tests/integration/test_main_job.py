"""The main job from end to end: HTTP in, HTTP out, every part a real process."""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from standardwebhooks import Webhook

from nayer_core.networks.registry import build
from tests.integration.conftest import INPUT_SIZE, Digits, Stack, accuracy_of, npz
from tests.support.receiver import SECRET, SECRET_TEXTS, Receiver, receiving
from tests.support.serving import wait_until

ARTIFACTS = {"report.json", "student.safetensors", "model_card.json", "metrics.jsonl", "samples.png"}


STEPS = ["queued", "running", "succeeded"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


def test_a_teacher_goes_in_and_a_student_comes_out(stack: Stack, digits: Digits, receiver: Receiver) -> None:
    evaluation = npz(images=digits.images.numpy(), labels=digits.labels.numpy())
    events = [f"job.{step}" for step in STEPS]
    spec = {**digits.spec, "webhook": {"url": receiver.url, "events": events, "secret": SECRET}}
    submitted = stack.submit(spec, teacher=digits.teacher_file, evaluation=evaluation)
    job = stack.follow(submitted["id"])
    assert job["status"] == "succeeded", (job["error"], stack.log.read_text()[-4000:])
    assert job["teacher"]["architecture"] == "resnet20"
    assert job["resolved"]["preset"] == "quick"

    artifact_list = stack.http.get(f"/jobs/{job['id']}/artifacts").json()["data"]
    assert {artifact["name"] for artifact in artifact_list} == ARTIFACTS
    bodies = {}
    for artifact in artifact_list:
        answer = stack.http.get(artifact["href"])
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
        assert len(answer.content) == artifact["bytes"]
        bodies[artifact["name"]] = answer.content

    student = build("wrn_16_1", num_classes=10, input_size=INPUT_SIZE)
    student.load_state_dict(load(bodies["student.safetensors"]))
    measured = accuracy_of(student.eval(), digits.images, digits.labels)
    latest = job["metrics"]["latest"]
    # Sums in another order may turn a digit or two of 397.
    assert latest["student_accuracy"] == pytest.approx(measured, abs=0.01)
    assert latest["teacher_accuracy"] == pytest.approx(digits.accuracy, abs=0.01)
    agreement = job["quality"]["estimated_agreement"]
    assert agreement["low"] <= agreement["value"] == round(latest["agreement"], 3) <= agreement["high"]
    assert agreement["basis"].startswith("measured: on the evaluation set")
    assert json.loads(bodies["model_card.json"])["quality"] == job["quality"]
    assert bodies["samples.png"].startswith(b"\x89PNG")

    log = events_of(stack, job["id"])
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    statuses = [event["data"]["status"] for event in log if event["type"] == "status"]
    assert statuses == ["validating", *STEPS]
    phases = [event["data"]["phase"] for event in log if event["type"] == "phase"]
    assert phases == ["inspect", "embed", "warmup", "distill", "evaluate"]
    assert any(event["type"] == "metrics" for event in log)

    wait_until(lambda: len(receiver.received) == len(STEPS), 20, "every step is told to the web hook")
    webhook_events = [Webhook(SECRET).verify(message.body, message.headers) for message in receiver.received]
    by_time = sorted(webhook_events, key=lambda message: message["timestamp"])
    assert [message["data"]["status"] for message in by_time] == STEPS
    assert not any(text in stack.log.read_text() for text in SECRET_TEXTS)


def test_a_job_can_be_cancelled_while_it_runs(stack: Stack, digits: Digits) -> None:
    spec = {**digits.spec, "config": {**digits.spec["config"], "epochs": 1000}}
    job_id = stack.submit(spec, teacher=digits.teacher_file)["id"]
    while not stack.http.get(f"/jobs/{job_id}/metrics").json()["series"]:
        assert stack.http.get(f"/jobs/{job_id}").json()["status"] in ("validating", "queued", "running")
    assert stack.http.post(f"/jobs/{job_id}/cancel").status_code == 200
    assert stack.follow(job_id, seconds=5)["status"] == "cancelled"


def test_a_validation_reports_the_architecture_of_the_teacher(stack: Stack, digits: Digits) -> None:
    files: dict[str, Any] = {"spec": (None, json.dumps(digits.spec)), "teacher": ("t", digits.teacher_file)}
    answer = stack.http.post("/jobs/validate", files=files)
    assert answer.status_code == 202
    job = stack.follow(answer.json()["id"])
    assert job["status"] == "succeeded", job["error"]
    assert job["teacher"]["architecture"] == "resnet20"


class _Opens:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("/tmp/the_teacher_was_run", "w"))


def torch_file(value: Any, **options: Any) -> bytes:
    body = io.BytesIO()
    torch.save(value, body, **options)
    return body.getvalue()


def bad_teachers(digits: Digits) -> dict[str, tuple[bytes, set[str]]]:
    good = digits.teacher.state_dict()
    name, weight = next(iter(good.items()))
    zipped = torch_file(good)
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.trace(digits.teacher, torch.zeros(1, *INPUT_SIZE)), scripted)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50 << 20))
    return {
        "noise": (bytes(range(256)) * 100, {"not_a_checkpoint"}),
        "half a file": (zipped[: len(zipped) // 2], {"truncated_file", "not_a_checkpoint"}),
        "half safetensors": (digits.teacher_file[:5000], {"truncated_file", "not_a_checkpoint"}),
        "code": (torch_file({"weight": _Opens()}), {"unsafe_checkpoint"}),
        "bare pickle": (
            pickle.dumps(_Opens()),
            {"unsafe_checkpoint", "unsupported_format", "not_a_checkpoint"},
        ),
        "whole module": (torch_file(digits.teacher), {"pickled_module"}),
        "torchscript": (scripted.getvalue(), {"torchscript"}),
        "zip bomb": (bomb.getvalue(), {"unsafe_checkpoint", "unsupported_format", "not_a_checkpoint"}),
        "not finite": (save({**good, name: torch.full_like(weight, float("nan"))}), {"non_finite_weights"}),
        "nine classes": (
            save({**good, **{k: v[:9] for k, v in good.items() if v.shape[:1] == (10,)}}),
            {"class_count_mismatch"},
        ),
        "another network": (save({"weight": torch.zeros(10, 3)}), {"architecture_unrecognised"}),
    }


@pytest.mark.filterwarnings("ignore:.torch.jit.")  # deprecated, and still sent to us
def test_bad_teachers_fail_with_a_code_and_a_hint_and_leave_nothing(stack: Stack, digits: Digits) -> None:
    stored_before = set(stack.stored_files())
    teachers = bad_teachers(digits)
    jobs = {name: stack.submit(digits.spec, teacher=body)["id"] for name, (body, _) in teachers.items()}
    webhook_events = {}
    for name, job_id in jobs.items():
        job = stack.follow(job_id)
        assert job["status"] == "failed", name
        assert job["error"]["message"], name
        assert job["error"]["hint"], name
        assert job["attempt"] == 1, name
        webhook_events[name] = job["error"]["code"]
    assert {name: code for name, code in webhook_events.items() if code not in teachers[name][1]} == {}
    for job_id in jobs.values():
        assert stack.http.delete(f"/jobs/{job_id}").status_code == 204
    assert set(stack.stored_files()) == stored_before


def events_of(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while page := stack.http.get(
        f"/jobs/{job_id}/events", params={"after": events[-1]["seq"] if events else 0}
    ).json()["data"]:
        events += page
    return events
