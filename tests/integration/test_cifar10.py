"""A real CIFAR-10 teacher of another team, from the folder that is shared beside the repository."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from nayer_core.networks.registry import build
from tests.integration.conftest import Stack

DATA = Path(__file__).parents[3] / "shared" / "data"
TEACHER_ACCURACY = 0.8095  # on the 2,000 images of cifar10_eval.npz

pytestmark = pytest.mark.skipif(
    not (DATA / "cifar10_resnet20.pt").exists(), reason=f"needs the CIFAR-10 teacher in {DATA}"
)


def test_a_published_teacher_is_recognised_and_distilled(stack: Stack) -> None:
    names = ("cifar10_resnet20.pt", "cifar10_resnet20_legacy.th")  # the same weights, two layouts
    reports = [check(stack, job_id) for job_id in [submit(stack, name) for name in names]]
    assert [report["format"] for report in reports] == ["torch_zip", "torch_legacy"]
    assert reports[0]["parameters"] == reports[1]["parameters"]


def submit(stack: Stack, name: str) -> str:
    spec = {
        "labels": (DATA / "cifar10_label.txt").read_text().split(),
        "teacher": {
            "architecture": "auto",
            "input_size": [3, 32, 32],
            "normalization": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        },
        "student": {"architecture": "wrn_16_1"},
        "preset": "quick",
        "text_encoder": {"name": "file"},
        "config": {
            **{"epochs": 1, "warmup_epochs": 1, "warmup_rounds_per_epoch": 1, "generator_steps": 2},
            **{"student_steps": 4, "synthesis_batch_size": 32, "student_batch_size": 32},
            "generator_width": 16,
        },
    }
    job = stack.submit(
        spec,
        teacher=(DATA / name).read_bytes(),
        evaluation=(DATA / "cifar10_eval.npz").read_bytes(),
        embeddings=(DATA / "cifar10_clip_vit_b32_lte.safetensors").read_bytes(),
    )
    return str(job["id"])


def check(stack: Stack, job_id: str) -> dict[str, Any]:
    job = stack.follow(job_id)
    assert job["status"] == "succeeded", (job["error"], stack.log.read_text()[-4000:])
    assert job["resolved"]["teacher_architecture"] == "resnet20"
    assert job["resolved"]["text_encoder"]["name"] == "file"
    assert job["metrics"]["latest"]["teacher_accuracy"] == pytest.approx(TEACHER_ACCURACY, abs=0.002)
    student = stack.http.get(f"/jobs/{job_id}/student")
    network = build("wrn_16_1", num_classes=10, input_size=(3, 32, 32))
    network.load_state_dict(load(student.content))
    card = json.loads(stack.http.get(f"/jobs/{job_id}/artifacts/model_card.json").content)
    assert card
    return dict(job["teacher"])
