"""The command `export`: other programs get the same logits from the same images."""

import argparse
import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from nayer_core.commands import export
from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.contract.normalization import Normalization
from nayer_core.networks.network_file import Description
from nayer_core.networks.registry import build
from nayer_core.networks.weights import file_sha256, save_weights

NORMALIZATION = Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
SIZE = (3, 32, 32)


@pytest.fixture
def student():
    torch.manual_seed(0)
    return build("resnet20", num_classes=4, input_size=SIZE).eval()


@pytest.fixture
def student_file(student, tmp_path):
    description = Description(
        architecture="resnet20", labels=("a", "b", "c", "d"), input_size=SIZE, normalization=NORMALIZATION
    )
    description.save(student, tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors"


def run(network, file_format, out, *, spec=None, architecture=None):
    args = argparse.Namespace(
        network=network, format=file_format, out=out, spec=spec, architecture=architecture
    )
    result = export.run(args, lambda _: None)
    assert result["sha256"] == file_sha256(out)
    assert result["bytes"] == out.stat().st_size
    assert (result["architecture"], result["format"]) == ("resnet20", file_format)
    return out


def images_and_logits(student, count):
    images = torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor(values).reshape(1, 3, 1, 1) for values in (NORMALIZATION.mean, NORMALIZATION.std)
    )
    with torch.no_grad():
        return images, student((images - mean) / std)


@pytest.mark.parametrize("count", [1, 5])
def test_pt2_takes_raw_images_in_batches_of_any_size(count, student, student_file, tmp_path):
    out = run(student_file, "pt2", tmp_path / "made" / "network.pt2")
    images, logits = images_and_logits(student, count)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(out).module()(images), logits)


def test_onnx_runs_without_torch_and_agrees(student, student_file, tmp_path):
    out = run(student_file, "onnx", tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images, logits = images_and_logits(student, count)
        (outputs,) = session.run(["logits"], {"images": images.numpy()})
        assert np.abs(outputs - logits.numpy()).max() < 1e-4


def test_safetensors_of_any_file_that_inspect_reads(student, tmp_path):
    checkpoint = {"state_dict": {f"module.{name}": value for name, value in student.state_dict().items()}}
    torch.save(checkpoint, tmp_path / "network.pt")
    spec = {
        "labels": ["a", "b", "c", "d"],
        "teacher": {"input_size": SIZE, "normalization": NORMALIZATION.model_dump()},
        "student": {"architecture": "resnet20"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    out = run(
        tmp_path / "network.pt",
        "safetensors",
        tmp_path / "network.safetensors",
        spec=tmp_path / "spec.json",
        architecture="resnet20",
    )
    outputs = load_file(out)
    assert outputs.keys() == student.state_dict().keys()
    assert all(torch.equal(outputs[name], value) for name, value in student.state_dict().items())
    assert Description.read(out).labels == ("a", "b", "c", "d")
    # What was written says what it is: no spec is needed any more.
    run(out, "safetensors", tmp_path / "again.safetensors")


def test_an_assumed_architecture_leads_to_a_warning(tmp_path):
    torch.manual_seed(0)
    network = build("timm/mobilenetv3_small_100", num_classes=2, input_size=SIZE)
    save_weights(network, tmp_path / "network.safetensors")
    spec = {
        "labels": ["a", "b"],
        "teacher": {"input_size": SIZE, "normalization": NORMALIZATION.model_dump()},
        "student": {"architecture": "resnet20"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    args = argparse.Namespace(
        network=tmp_path / "network.safetensors",
        format="safetensors",
        out=tmp_path / "out.safetensors",
        spec=tmp_path / "spec.json",
        architecture=None,
    )
    events = []
    assert export.run(args, events.append)["architecture"] == "timm/mobilenetv3_small_100"
    (warning,) = events
    assert warning.code == "architecture_assumed"
    assert "timm/tf_mobilenetv3_small_100" in warning.message


def test_a_file_that_does_not_say_what_it_is_needs_a_spec(student, tmp_path):
    save_weights(student, tmp_path / "bare.safetensors")
    with pytest.raises(SpecError) as raised:
        run(tmp_path / "bare.safetensors", "pt2", tmp_path / "network.pt2")
    assert raised.value.code == ErrorCode.INVALID_COMMAND
    assert "--spec" in raised.value.hint
