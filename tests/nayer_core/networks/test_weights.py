"""State dicts out of their wrappers, into a network and through a file; and a real teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nayer_core.commands.teacher_reading import read_teacher
from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks import registry
from nayer_core.networks.recognition import Recognition
from nayer_core.networks.weights import (
    canonical,
    file_sha256,
    freeze,
    load_weights,
    read_weights,
    save_weights,
    without_wrappers,
)

DATA = Path(__file__).parents[4] / "shared" / "data"


def _network() -> nn.Module:
    return registry.build("resnet20", num_classes=10, input_size=(3, 32, 32))


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("_orig_mod.fc.bias", "fc.bias"),
        ("module._orig_mod.fc.bias", "module.fc.bias"),
        ("_fsdp_wrapped_module.layer1._checkpoint_wrapped_module.fc.bias", "layer1.fc.bias"),
        ("my_orig_mod.fc.bias", "my_orig_mod.fc.bias"),
        ("fc.bias", "fc.bias"),
    ],
)
def test_wrappers_are_removed_wherever_they_are(name: str, bare: str):
    assert without_wrappers({name: 1}) == {bare: 1}


def test_names_that_would_be_one_keep_their_wrappers():
    names = {"_orig_mod.fc.bias": 1, "fc.bias": 2}
    assert without_wrappers(names) == names


def test_weights_survive_a_file(tmp_path: Path):
    network, other = _network(), _network()
    save_weights(network, tmp_path / "a.safetensors", {"architecture": "resnet20"})
    load_weights(other, read_weights(tmp_path / "a.safetensors"))
    torch.testing.assert_close(other.state_dict(), network.state_dict(), rtol=0, atol=0)


def test_weights_that_share_memory_can_be_saved(tmp_path: Path):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    save_weights(network, tmp_path / "a.safetensors")
    assert torch.equal(read_weights(tmp_path / "a.safetensors")["1.weight"], network[0].weight)


def test_a_network_takes_no_other_tensors():
    tensors = _network().state_dict()
    tensors["linear.weight"] = torch.zeros(7, 64)
    del tensors["linear.bias"]
    with pytest.raises(TeacherError) as excinfo:
        load_weights(_network(), tensors, "resnet20")
    assert excinfo.value.code == ErrorCode.ARCHITECTURE_MISMATCH
    assert "1 missing (linear.bias)" in excinfo.value.message
    assert "linear.weight is [7, 64], not [10, 64]" in excinfo.value.message


def test_absent_batch_counters_become_zero_in_the_networks_order():
    network = _network()
    tensors = {f"x.{k}": v for k, v in reversed(network.state_dict().items()) if "num_batches" not in k}
    renamed = {name: name.removeprefix("x.") for name in tensors}
    recognition = Recognition("resnet20", renamed, ("resnet20",))
    empty = registry.build_on_meta("resnet20", num_classes=10, input_size=(3, 32, 32))
    tensors_by_name = canonical(tensors, recognition, empty)
    assert list(tensors_by_name) == list(network.state_dict())
    assert tensors_by_name["bn1.num_batches_tracked"] == 0


def test_a_frozen_network_is_a_function():
    network = freeze(_network())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    network(images).sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_the_digest_of_a_file(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real teacher is in ../shared/data, which is absent")
def test_a_teacher_of_another_team_scores_what_it_did(tmp_path: Path):
    teacher = read_teacher(
        DATA / "cifar10_resnet20.pt", "auto", num_classes=10, input_size=(3, 32, 32), scratch=tmp_path
    )
    assert (teacher.wrapped_in, teacher.recognition.prefix) == ("state_dict", "module.")
    assert teacher.recognition.architecture == "resnet20"
    network = freeze(teacher.network)

    evaluation = np.load(DATA / "cifar10_eval.npz")
    images = torch.from_numpy(evaluation["images"]).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = network((images - mean[:, None, None]) / std[:, None, None])
    accuracy = (logits.argmax(1) == torch.from_numpy(evaluation["labels"])).float().mean()
    assert float(accuracy) == pytest.approx(0.8095, abs=0.002)
