"""The command `evaluate`: accuracy on images, and agreement with a teacher."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nayer_core.commands import evaluate
from nayer_core.contract.errors import ErrorCode, UploadError
from nayer_core.networks.registry import build
from nayer_core.networks.weights import save_weights

SIZE = (1, 12, 12)
MEAN, STD = 0.4, 0.3


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    document = {
        "labels": ["circle", "square", "star"],
        "teacher": {"input_size": SIZE, "normalization": {"mean": [MEAN], "std": [STD]}},
        "student": {"architecture": "lenet5"},
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(document))
    return path


def _network(path: Path, architecture: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = build(architecture, num_classes=3, input_size=SIZE).eval()
    save_weights(network, path)
    return network


def _run(spec: Path, network: Path, images: Path, **more: Any) -> dict[str, Any]:
    options = {"spec": spec, "network": network, "images": images, "device": "cpu", "teacher": None, **more}
    return evaluate.run(argparse.Namespace(**options), lambda _: None)


def test_accuracy_and_agreement_are_what_the_networks_say(spec: Path, tmp_path: Path):
    student = _network(tmp_path / "student.safetensors", "lenet5", seed=0)
    teacher = _network(tmp_path / "teacher.safetensors", "wrn_10_1", seed=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 12, 12, 1), dtype=np.uint8)
    labels = rng.integers(0, 3, 40)
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD
    by_student, by_teacher = (network(inputs).argmax(1).numpy() for network in (student, teacher))
    result = _run(
        spec,
        tmp_path / "student.safetensors",
        tmp_path / "images.npz",
        architecture="lenet5",
        teacher=tmp_path / "teacher.safetensors",
    )
    assert result == {
        "accuracy": pytest.approx((by_student == labels).mean()),
        "count": 40,
        "teacher_accuracy": pytest.approx((by_teacher == labels).mean()),
        "agreement": pytest.approx((by_student == by_teacher).mean()),
    }


def test_images_of_another_size_are_refused(spec: Path, tmp_path: Path):
    _network(tmp_path / "student.safetensors", "lenet5", seed=0)
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 8, 8, 1), np.uint8), labels=np.zeros(4, np.int64))
    with pytest.raises(UploadError) as refused:
        _run(spec, tmp_path / "student.safetensors", tmp_path / "images.npz", architecture="lenet5")
    assert refused.value.code == ErrorCode.EVALUATION_INVALID
