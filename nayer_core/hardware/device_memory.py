"""Errors for want of memory: recognised, translated, and cleaned up after."""

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")

# Messages of errors other than OutOfMemoryError: torch's allocator on the CPU, and libraries of the device
# that allocate for themselves.
_LIBRARY_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# oneDNN gives no reason. For a kind it does not support, the message names a "primitive descriptor" instead.
_ONEDNN_MESSAGES = ("could not create a primitive", "could not create a memory object")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the device or of the machine has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and (
        message in _ONEDNN_MESSAGES or any(words in message for words in _LIBRARY_MESSAGES)
    )


class DeviceFull(Exception):
    """A piece of work ran out of memory. Holds none of its frames, and so none of its tensors."""


def do_within_memory(work: Callable[[], Result]) -> Result:
    """Do a piece of work, and turn its error into one that can be handled if it runs out of memory.

    Raises:
        DeviceFull: memory has run out. The original error is released by then: its frames hold the tensors
            that fill the device.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise DeviceFull


def give_back_unused(device: torch.device) -> None:
    """Return unused memory to the device; call it when no reference to the error of a failed step is left."""
    # An interrupted backward pass leaves its nodes, and their tensors, in torch's queue until the next one.
    torch.zeros((), requires_grad=True).mul(1).backward()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # glibc keeps freed memory: 263 MB after a step of 2,048 images of 12 x 12
