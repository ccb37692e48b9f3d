"""Depthwise convolutions in bfloat16 and in float32: forward and backward pass, in ms.

    OMP_NUM_THREADS=1 python -m benchmarks.depthwise

The layers are those of `timm/mobilenetv3_small_050` at 96 pixels and two of other networks; 64 images,
channels-last; processor time, the best of six.
"""

import time

import torch
from torch import nn

from benchmarks import machine
from nayer_core.hardware.allocator import keep_freed_memory
from nayer_core.hardware.depthwise import compute_depthwise_in_float32

IMAGES, REPEATS = 64, 6
# (channels, kernel, stride, side of the input in pixels)
LAYERS = (
    (16, 3, 2, 48),
    (40, 3, 2, 24),
    (48, 5, 2, 12),
    (288, 5, 2, 6),
    (144, 5, 1, 6),
    (128, 7, 1, 12),
    (56, 3, 1, 12),
    (96, 3, 1, 24),
)


def main() -> None:
    """Print a row for each layer."""
    keep_freed_memory()
    print(machine.describe())
    print("channels  kernel  stride  side    bfloat16       float32 where slow")
    for channels, kernel, stride, side in LAYERS:
        layer = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
        network = nn.Sequential(layer).to(memory_format=torch.channels_last)
        plain = _milliseconds(network, channels, side)
        compute_depthwise_in_float32(network)
        chosen = _milliseconds(network, channels, side)
        print(f"{channels:8}  {kernel:6}  {stride:6}  {side:4}  {plain}  {chosen}")


def _milliseconds(network: nn.Module, channels: int, side: int) -> str:
    features = torch.randn(IMAGES, channels, side, side).bfloat16()
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    forward = backward = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(features)
        between = time.process_time()
        outputs.sum().backward()
        forward = min(forward, between - start)
        backward = min(backward, time.process_time() - between)
    return f"{forward * 1e3:6.2f} {backward * 1e3:6.2f}"


if __name__ == "__main__":
    main()
