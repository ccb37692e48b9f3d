"""Our optimisers against those of torch.optim, whose kernels they call."""

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nayer_core.hardware.optimizers import SGD, Adam

BETAS = (0.5, 0.999)


def pair_of_networks() -> tuple[nn.Module, nn.Module]:
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return network, copy.deepcopy(network)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda parameters: SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01),
            lambda parameters: torch.optim.SGD(
                parameters, lr=0.1, momentum=0.9, weight_decay=0.01, fused=True
            ),
        ),
        (
            lambda parameters: Adam(parameters, 0.1, betas=BETAS),
            lambda parameters: torch.optim.Adam(parameters, lr=0.1, betas=BETAS, fused=True),
        ),
    ],
)
def test_parameters_move_as_with_torchs_optimisers_bit_by_bit(ours: Callable, theirs: Callable) -> None:
    first, second = pair_of_networks()
    images = torch.randn(9, 5)
    optimizers = (ours(first.parameters()), theirs(second.parameters()))
    for _ in range(5):
        for network, optimizer in zip((first, second), optimizers, strict=True):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
    for moved, expected in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(moved, expected)


def test_a_parameter_without_a_gradient_does_not_change() -> None:
    network, before = pair_of_networks()
    optimizer = Adam(network.parameters(), 0.1, betas=BETAS)
    network[0](torch.randn(4, 5)).sum().backward()
    optimizer.step()
    assert not torch.equal(network[0].weight, before[0].weight)
    assert torch.equal(network[2].weight, before[2].weight)


def test_the_scaling_of_float16_is_undone_and_an_overflow_skipped() -> None:
    network, other = pair_of_networks()
    images = torch.randn(9, 5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer, plain = (SGD(n.parameters(), 0.1, momentum=0.9, weight_decay=0.0) for n in (network, other))
    scaler.scale(network(images).square().mean()).backward()
    other(images).square().mean().backward()
    scaler.step(optimizer)
    scaler.update()
    plain.step()
    for moved, expected in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(moved, expected)

    before = copy.deepcopy(network)
    optimizer.zero_grad()
    scaler.scale(network(images).square().mean() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    for moved, initial in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(moved, initial)
    assert scaler.get_scale() < 1024.0


def test_a_run_does_not_load_torchs_compiler() -> None:
    program = (
        "import sys; from tests.support.small_runs import SmallRun; "
        "run = SmallRun(); run.go_on(); "
        "print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
