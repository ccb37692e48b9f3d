"""Attention maps against their definition, and which features are compared."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nayer_core.methods.parts.attention import AttentionAlignment, attention_map, last_layers
from nayer_core.networks.registry import build
from tests.support.small_runs import CONFIG, SmallRun, same

SIZE = (3, 32, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_map_is_the_energy_at_each_place_with_length_one(dtype: torch.dtype):
    features = torch.randn(3, 5, 4, 6).to(dtype)
    expected = F.normalize(features.double().square().sum(1).flatten(1)).float()
    torch.testing.assert_close(attention_map(features), expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_definition():
    features = torch.randn(2, 5, 4, 4, requires_grad=True)
    goal = torch.randn(2, 16)
    by_hand = F.normalize(features.square().sum(1).flatten(1))
    (expected,) = torch.autograd.grad((by_hand * goal).sum(), features)
    (result,) = torch.autograd.grad((attention_map(features) * goal).sum(), features)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_1", "resnet18", "vgg11_bn", "mobilenet_v2"])
def test_the_last_features_of_each_resolution_are_found(name: str):
    network = build(name, num_classes=10, input_size=SIZE).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    result = last_layers(network, SIZE)
    assert len(result) >= 3
    assert all(min(resolution) > 1 for resolution in result)
    assert network.training
    assert same(before, network.state_dict())
    assert not any(layer._forward_hooks for layer in network.modules())


def test_a_network_has_no_attention_distance_from_itself():
    network = build("resnet20", num_classes=10, input_size=SIZE).eval()
    alignment = AttentionAlignment(network, network, SIZE)
    assert alignment.resolutions == [(32, 32), (16, 16), (8, 8)]
    with alignment.watching():
        network(torch.rand(2, *SIZE))
        assert alignment.distance() == 0


def test_the_student_alone_is_drawn():
    teacher = build("resnet20", num_classes=10, input_size=SIZE).eval()
    student = build("wrn_16_1", num_classes=10, input_size=SIZE)
    alignment = AttentionAlignment(teacher, student, SIZE)
    images = torch.rand(4, *SIZE)
    with alignment.watching():
        with torch.no_grad():
            teacher(images)
        student(images)
        distance = alignment.distance()
    assert 0 < distance < 2 * 3
    distance.backward()
    assert student.conv1.weight.grad is not None
    assert student.conv1.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_networks_without_a_common_resolution_are_not_compared():
    teacher, student = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), nn.Sequential(nn.Conv2d(3, 4, 3))
    assert not AttentionAlignment(teacher, student, SIZE)


def test_attention_changes_the_student_and_not_the_first_images():
    plain, aligned = SmallRun(CONFIG), SmallRun(CONFIG.model_copy(update={"attention_weight": 2.0}))
    for run in (plain, aligned):
        run.go_on()
    assert not same(plain.weights(), aligned.weights())
    first = plain.method.bank.read(plain.method.bank.segments[0])[0]
    assert torch.equal(first, aligned.method.bank.read(aligned.method.bank.segments[0])[0])
