"""Slow depthwise convolutions leave autocast, and compute what they did."""

import copy

import torch
from torch import nn

from nayer_core.hardware.depthwise import compute_depthwise_in_float32
from nayer_core.networks.registry import build


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),  # strided
        nn.Conv2d(6, 6, 5, padding=2, groups=6),  # large
        nn.Conv2d(6, 6, 3, padding=1, groups=6),  # fast as it is
        nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3),  # grouped, not depthwise
    )


def test_only_slow_layers_compute_in_float32_and_all_return_the_format_they_get():
    network = _network()
    compute_depthwise_in_float32(network)
    assert ["forward" in vars(layer) for layer in network] == [True, True, False, False]
    features = torch.randn(2, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert network[0](features.bfloat16()).dtype == torch.bfloat16
    exact = network[0](features.bfloat16().float()).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network[0](features.bfloat16()), exact, rtol=0, atol=0)


def test_the_large_kernels_of_a_frozen_network_are_fast_enough():
    network = _network().requires_grad_(False)
    compute_depthwise_in_float32(network)
    assert ["forward" in vars(layer) for layer in network] == [True, False, False, False]


def test_in_float32_nothing_changes_and_gradients_reach_the_weights():
    network = _network()
    features = torch.randn(2, 6, 8, 8)
    before = network(features)
    compute_depthwise_in_float32(network)
    torch.testing.assert_close(network(features), before, rtol=0, atol=0)
    network(features).sum().backward()
    assert network[0].weight.grad is not None


def test_a_copy_of_the_network_computes_with_its_own_weights():
    network = _network()
    compute_depthwise_in_float32(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert twin(torch.randn(2, 6, 8, 8)).abs().sum() > 0


def test_mobile_networks_of_the_libraries_have_such_layers():
    network = build("timm/mobilenetv3_small_050", num_classes=4, input_size=(3, 32, 32))
    compute_depthwise_in_float32(network)
    assert sum("forward" in vars(layer) for layer in network.modules()) >= 4
