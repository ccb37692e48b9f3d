"""Depthwise convolutions on the CPU in float32, where bfloat16 is many times slower.

The gradients of a depthwise convolution of stride 2 take 16 to 60 ms in bfloat16 and 1 to 2 in float32
(64 images, 16 to 288 channels, torch 2.14, one thread; `python -m benchmarks.depthwise`). The gradient
of the weights of a kernel larger than 3 x 3 is slow too. They took a third of a mobile student's step.
"""

from functools import partial

import torch
from torch import Tensor, nn

_LARGEST_FAST_KERNEL = 3


def compute_depthwise_in_float32(network: nn.Module) -> None:
    """Exempt a network's slow depthwise convolutions from autocast; what it computes is the same or closer.

    Args:
        network: on the CPU; its weights are float32.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and _is_slow(layer):
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign] # for good


def _is_slow(layer: nn.Conv2d) -> bool:
    is_strided = max(layer.stride) > 1
    learns_a_large_kernel = layer.weight.requires_grad and max(layer.kernel_size) > _LARGEST_FAST_KERNEL
    return 1 < layer.groups == layer.in_channels and (is_strided or learns_a_large_kernel)


def _forward(layer: nn.Conv2d, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        convolved: Tensor = type(layer).forward(layer, features.float())
    return convolved.to(features.dtype)
