"""Weights of networks: loaded into a network, read and written."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks.difference import compare
from nayer_core.networks.registry import Shapes

# Names of modules that training code puts around a network: prefixes of all names of its weights.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")

_Network = TypeVar("_Network", bound=nn.Module)


def wrapper_prefix(names: Iterable[str]) -> str:
    """Return the prefix that wrappers give to every name, such as `module.`; often empty."""
    names = list(names)
    prefix = ""
    while names:
        shared = [
            wrapper for wrapper in WRAPPER_PREFIXES if all(n.startswith(wrapper, len(prefix)) for n in names)
        ]
        if not shared:
            break
        prefix += shared[0]
    return prefix


def remove_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the same values under names without `prefix`."""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the names and shapes of `tensors`."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def canonical(
    tensors: Mapping[str, Tensor], renamed: Mapping[str, str], network: nn.Module
) -> dict[str, Tensor]:
    """Give `tensors` the names and the order of `network`; absent batch counters become 0.

    Args:
        tensors: name -> tensor as uploaded.
        renamed: name as uploaded -> name in `network` (`recognition.Recognition.renamed`).
        network: gives names and order; it may be on the meta device.
    """
    by_name = {new: tensors[old] for old, new in renamed.items()}
    return {
        name: by_name[name] if name in by_name else torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in network.state_dict().items()
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
