"""Cost of the BN term's statistics, and of a frozen BatchNorm, beside the convolution before them.

    python -m benchmarks.channel_statistics

Features of 200 x 16 x 32 x 32, bf16, channels-last; the best of 20, forward and backward, in ms.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import machine
from nayer_core.hardware.frozen_batch_norm import frozen_batch_norms
from nayer_core.methods.parts.bn_regularization import channel_statistics

SHAPE = (200, 16, 32, 32)
REPEATS = 20


def main() -> None:
    """Print one row for each way."""
    print(machine.describe())
    features = torch.randn(SHAPE).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    convolution = nn.Conv2d(16, 16, 3, padding=1, bias=False).bfloat16().requires_grad_(False)
    convolution = convolution.to(memory_format=torch.channels_last)
    batch_norm = nn.BatchNorm2d(16).eval().requires_grad_(False)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "convolution": convolution,
        "torch.var_mean": _by_var_mean,
        "channel_statistics": channel_statistics,
        "BatchNorm": batch_norm,
    }
    for name, way in ways.items():
        _show(name, way, features)
    with frozen_batch_norms(batch_norm):
        _show("frozen_batch_norms", batch_norm, features)


def _show(name: str, way: Callable[[Tensor], Tensor], features: Tensor) -> None:
    forward, backward = _best(way, features)
    print(f"{name:20}  {forward * 1e3:6.2f}  {backward * 1e3:6.2f}")


def _by_var_mean(features: Tensor) -> Tensor:
    variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3), correction=0)
    return torch.stack([mean, variance])


def _best(way: Callable[[Tensor], Tensor], features: Tensor) -> tuple[float, float]:
    gradient = torch.ones_like(way(features))
    forwards, backwards = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        outputs = way(features)
        between = time.perf_counter()
        torch.autograd.grad(outputs, features, gradient)
        forwards.append(between - start)
        backwards.append(time.perf_counter() - between)
    return min(forwards), min(backwards)


if __name__ == "__main__":
    main()
