"""Weights of networks: found in checkpoints, loaded into a network, read and written."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks.client_file import ClientFile, subscripts
from nayer_core.networks.difference import compare
from nayer_core.networks.registry import Shapes

# Names of modules that training code puts around a network: prefixes of all names of its weights.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")

# Keys under which training code saves weights, likeliest first.
_WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "teacher", "student")
_DEEPEST = 4  # wrappers around wrappers
_MOST_PLACES = 5  # that a message names

_Network = TypeVar("_Network", bound=nn.Module)


def find_state_dict(document: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the one state dict in a checkpoint: it may be under `state_dict`, `model`, ...

    Args:
        document: content of a checkpoint file: dicts, tensors and plain values.

    Returns:
        The tensors by name (other entries are left out), and the keys that lead to them, outermost first.

    Raises:
        TeacherError: `not_a_checkpoint` if there are no named tensors or several sets of them.
    """
    state_dicts = list(_state_dicts(document, ()))
    if not state_dicts:
        raise TeacherError(
            ErrorCode.NOT_A_CHECKPOINT,
            "The file holds no tensors with names.",
            'Upload what this line writes: torch.save(network.state_dict(), "teacher.pt")',
        )
    for key in _WEIGHTS_KEYS:
        matches = [entry for entry in state_dicts if entry[1] and entry[1][-1] == key]
        if matches:
            return matches[0]
    if len(state_dicts) > 1:
        places = ", ".join(_place(path) for _, path in state_dicts[:_MOST_PLACES])
        _, path = max(state_dicts, key=lambda entry: len(entry[0]))
        tensors_only = "sd = {k: v for k, v in sd.items() if isinstance(v, torch.Tensor)}"
        line = ClientFile(keys=path).edited(tensors_only)
        raise TeacherError(
            ErrorCode.NOT_A_CHECKPOINT,
            f"The file holds {len(state_dicts)} sets of tensors: {places}.",
            f"Upload one of them, as this line writes it: {line}" if line else "Upload one of them alone.",
        )
    return state_dicts[0]


def _place(path: tuple[str, ...]) -> str:
    return f"at {subscripts(path)[:80]}" if path else "at the top"


def _state_dicts(
    document: object, path: tuple[str, ...]
) -> Iterable[tuple[dict[str, Tensor], tuple[str, ...]]]:
    if not isinstance(document, Mapping) or len(path) > _DEEPEST:
        return
    tensors = {key: value for key, value in document.items() if isinstance(value, Tensor)}
    if tensors and all(isinstance(key, str) for key in tensors):
        yield tensors, path
    for key, value in document.items():
        if isinstance(key, str) and not key.startswith("optim"):
            yield from _state_dicts(value, (*path, key))


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
