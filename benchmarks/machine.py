"""Peak speed of convolutions on this machine, with which all other figures are compared."""

import platform
import time

import torch

_SHAPE = (64, 128, 32, 32)  # images, channels, height, width: large enough to be all arithmetic
_SECONDS = 2.0


def conv_peak(dtype: torch.dtype) -> float:
    """Best rate of a 3 x 3 convolution of 128 channels, forward, in FLOP/s."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(_SHAPE, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (
        torch.randn(128, 128, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    )
    flops = 2 * images.numel() * 128 * 9
    best, until = 0.0, time.perf_counter() + _SECONDS
    with torch.no_grad():
        while time.perf_counter() < until:
            start = time.perf_counter()
            torch.conv2d(images, weight, padding=1)
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, flops / (time.perf_counter() - start))
    return best


def describe() -> str:
    """Processor or GPU, cores and torch, for the head of a table."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    cpuinfo = "/proc/cpuinfo"
    try:
        with open(cpuinfo) as file:  # noqa: PTH123 - not a file of ours
            name = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
