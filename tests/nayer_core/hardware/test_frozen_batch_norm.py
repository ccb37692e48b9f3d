"""A frozen BatchNorm computes what PyTorch's does, and its gradient to the input."""

import copy

import pytest
import torch
from torch import Tensor, nn

from nayer_core.hardware.frozen_batch_norm import affine_by_channel, frozen_batch_norms


def trained(*layers: nn.Module) -> nn.Sequential:
    """Layers whose BatchNorm statistics and weights are none of the initial ones."""
    network = nn.Sequential(*layers)
    for layer in network:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.2, 3)
            if layer.affine:
                nn.init.uniform_(layer.weight, -2, 2)
                nn.init.uniform_(layer.bias, -1, 1)
    return network.eval().requires_grad_(False)


NETWORKS = {
    "images": ((4, 3, 8, 8), lambda: trained(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True))),
    "rows": ((6, 7), lambda: trained(nn.Linear(7, 5), nn.BatchNorm1d(5))),
    "without weights": ((4, 3, 8, 8), lambda: trained(nn.BatchNorm2d(3, affine=False))),
    "another eps": ((4, 3, 8, 8), lambda: trained(nn.BatchNorm2d(3, eps=0.1))),
}


def answer(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    inputs = inputs.clone().requires_grad_()
    outputs = network(inputs)
    (gradient,) = torch.autograd.grad(
        (outputs * torch.arange(outputs.numel()).view_as(outputs)).sum(), inputs
    )
    return outputs.detach(), gradient


@pytest.mark.parametrize("case", NETWORKS)
def test_outputs_and_gradients_are_pytorchs(case: str) -> None:
    torch.manual_seed(0)
    shape, make = NETWORKS[case]
    network, inputs = make(), torch.randn(shape)
    outputs, gradient = answer(copy.deepcopy(network), inputs)
    with frozen_batch_norms(network):
        frozen_outputs, frozen_gradient = answer(network, inputs)
    assert torch.equal(frozen_outputs, outputs)
    torch.testing.assert_close(frozen_gradient, gradient, rtol=1e-4, atol=1e-4)


def test_the_network_is_as_before_afterwards() -> None:
    network = trained(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    with frozen_batch_norms(network):
        assert "forward" in vars(network[1])
    assert "forward" not in vars(network[1])


def test_layers_in_training_are_left_alone() -> None:
    network = trained(nn.BatchNorm2d(3)).train()
    with frozen_batch_norms(network):
        assert "forward" not in vars(network[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_affine_by_channel(dtype: torch.dtype) -> None:
    features = torch.randn(3, 4, 5, 5, dtype=dtype)
    scale, shift = torch.randn(4), torch.randn(4)
    expected = features.float() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    mapped = affine_by_channel(features, scale, shift)
    assert mapped.dtype == dtype
    torch.testing.assert_close(
        mapped.float(),
        expected,
        **({"rtol": 2**-7, "atol": 2**-7} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}),
    )
