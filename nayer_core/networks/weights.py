"""Weights of networks: loaded into a network, read and written."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks.difference import compare
from nayer_core.networks.recognition import Recognition
from nayer_core.networks.registry import Shapes

# Names that wrappers for training give to what is in them, wherever they are in a network.
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_Network = TypeVar("_Network", bound=nn.Module)
_Value = TypeVar("_Value")


def without_wrappers(tensors: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the same values under names without the wrappers of torch.compile, FSDP and checkpointing."""
    bare = {_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    return bare if len(bare) == len(tensors) else dict(tensors)


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the names and shapes of `tensors`."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def canonical(
    tensors: Mapping[str, Tensor], recognition: Recognition, network: nn.Module
) -> dict[str, Tensor]:
    """Give `tensors` the names and the order of `network`; absent batch counters become 0.

    A head with one output z gets a first output of zeros: softmax(0, z) is sigmoid(z).

    Args:
        tensors: name -> tensor as uploaded.
        recognition: of these tensors.
        network: gives names and order; it may be on the meta device.
    """
    by_name = {new: tensors[old] for old, new in recognition.renamed.items()}
    expected = network.state_dict()
    by_name |= {name: torch.zeros(expected[name].shape) for name in recognition.zeros}
    if recognition.is_binary:
        by_name = {
            name: tensor
            if tensor.shape == expected[name].shape
            else torch.cat([torch.zeros_like(tensor), tensor])
            for name, tensor in by_name.items()
        }
    return {
        name: by_name[name] if name in by_name else torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in expected.items()
        if name in by_name or _is_counter(name)
    }


def load_weights(
    network: _Network, tensors: Mapping[str, Tensor], architecture: str = "this network"
) -> _Network:
    """Copy exactly these `tensors` into `network`, in the network's own precision.

    Args:
        network: keeps its device and dtype.
        tensors: name -> tensor; batch counters may be absent.
        architecture: the network's name, for the error.

    Raises:
        TeacherError: `architecture_mismatch`, with the tensors that differ.
    """
    expected = network.state_dict()
    difference = compare(architecture, shapes_of(tensors), shapes_of(expected))
    if difference:
        raise TeacherError(
            ErrorCode.ARCHITECTURE_MISMATCH,
            f"The {len(tensors)} tensors are not those of {architecture}: {difference}.",
            "Name the architecture that was trained.",
        )
    counters = {name: tensor for name, tensor in expected.items() if _is_counter(name)}
    network.load_state_dict({**counters, **tensors})
    return network


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the state dict of `network` as safetensors, with `metadata` in its header."""
    # Clones: the format does not support tensors that share memory.
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()
    }
    save_file(tensors, path, dict(metadata or {}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from the safetensors file at `path`."""
    return load_file(path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file at `path`, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def freeze(network: _Network) -> _Network:
    """Make `network` a fixed function: its statistics do not change and its weights get no gradient."""
    return network.eval().requires_grad_(False)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
