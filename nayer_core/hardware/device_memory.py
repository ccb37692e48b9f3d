"""Running out of memory: told from other errors, and cleared away."""

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")

# What torch raises besides OutOfMemoryError: its allocator on the CPU, and libraries of the device
# that allocate for themselves.
_LIBRARY_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# oneDNN tells no reason; a kind that it does not know is a "primitive descriptor" to it.
_ONEDNN_MESSAGES = ("could not create a primitive", "could not create a memory object")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the device or of the machine, has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and (
        message in _ONEDNN_MESSAGES or any(words in message for words in _LIBRARY_MESSAGES)
    )


class DeviceFull(Exception):
    """A piece of work found no memory. Holds none of its frames, and so none of its tensors."""


def do_within_memory(work: Callable[[], Result]) -> Result:
    """Do a piece of work whose failing for want of memory can be got over.

    Raises:
        DeviceFull: memory has run out; the error itself, whose frames hold what fills the device,
            is gone by then.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise DeviceFull


def give_back_unused(device: torch.device) -> None:
    """Return what steps have left to the device; nothing may hold the error of one that failed any more."""
    # A backward pass that broke off leaves its nodes, and what they hold, in torch's queue until the next.
    torch.zeros((), requires_grad=True).mul(1).backward()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # glibc keeps what was freed: 263 MB behind a step of 2,048 images of 12 x 12
