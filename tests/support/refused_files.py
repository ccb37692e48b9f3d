"""Teacher files that people have and that are refused, each with the line of Python that mends it.

All hold the weights of one ResNet-20 for 4 classes, or, where the head is binary, of one for one output.
"""

import argparse
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nayer_core.contract.errors import ErrorCode as Code
from nayer_core.networks.registry import build

State = dict[str, Tensor]
Write = Callable[[Path, State], str]  # writes into the folder; returns the name of the file that is sent


def network(num_classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return build("resnet20", num_classes=num_classes, input_size=(3, 32, 32))


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def renamed(state: State, old: str, new: str) -> State:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


def _torch(change: Callable[[State], Any], **options: Any) -> Write:
    def write(folder: Path, state: State) -> str:
        torch.save(change(state), folder / "teacher.pt", **options)
        return "teacher.pt"

    return write


def _safetensors(change: Callable[[State], State]) -> Write:
    def write(folder: Path, state: State) -> str:
        contents = {name: tensor.contiguous() for name, tensor in change(state).items()}
        save_file(contents, folder / "teacher.safetensors")
        return "teacher.safetensors"

    return write


def _with(**more: Any) -> Callable[[State], dict[str, Any]]:
    return lambda state: {**state, **more}


def _of_floats(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {
        name: change(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


def _profiled(state: State) -> State:
    """What thop leaves in every module, those without weights too."""
    modules = {name.rpartition(".")[0] for name in state} | {"", "relu", "layer1.0.relu"}
    counters = ("total_ops", "total_params")
    return state | {f"{module}.{it}".lstrip("."): torch.ones(1) for module in modules for it in counters}


def _repacked(**options: Any) -> Write:
    """A torch file whose folder was unpacked and packed again."""

    def write(folder: Path, state: State) -> str:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(folder / "teacher.pt", "w", **options) as new:
            new.writestr("archive/", b"")
            for name in old.namelist():
                new.writestr(name, old.read(name))
            new.writestr("__MACOSX/archive/._data.pkl", b"finder")
        return "teacher.pt"

    return write


def _shards(suffix: str, index: str) -> Write:
    def write(folder: Path, state: State) -> str:
        names = list(state)
        weight_map = {}
        for shard, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
            file = f"{index.split('.')[0]}-0000{shard + 1}-of-00002.{suffix}"
            tensors = {name: state[name].contiguous() for name in part}
            save_file(tensors, folder / file) if suffix == "safetensors" else torch.save(
                tensors, folder / file
            )
            weight_map |= dict.fromkeys(part, file)
        document = {"metadata": {"total_size": 1, "note": "x" * 2000}, "weight_map": weight_map}
        (folder / index).write_text(json.dumps(document, indent=2))
        return index

    return write


def _npz(folder: Path, state: State) -> str:
    np.savez(folder / "teacher.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    return "teacher.npz"


def _bare_pickle(folder: Path, state: State) -> str:
    (folder / "teacher.pkl").write_bytes(pickle.dumps(state, protocol=4))
    return "teacher.pkl"


class _Weights(dict[str, Any]):
    """A dict of a class of the client."""


def _whole(state: State) -> nn.Module:
    whole = network()
    whole.load_state_dict(state)
    return whole


UNRECOGNISED = Code.ARCHITECTURE_UNRECOGNISED
TENSOR = Code.UNSUPPORTED_TENSOR
BESIDE = Code.UNSAFE_CHECKPOINT

# What is wrong -> how the file is written, and the code it is refused with.
REFUSED: dict[str, tuple[Write, Code]] = {
    # names
    "dropout in front of the head": (_torch(lambda s: renamed(s, "linear.", "linear.1.")), UNRECOGNISED),
    "last_linear": (_torch(lambda s: renamed(s, "linear.", "last_linear.")), UNRECOGNISED),
    "backbone": (_torch(lambda s: under("backbone.", s)), UNRECOGNISED),
    "backbone and head": (
        _torch(lambda s: renamed(under("backbone.", s), "backbone.linear.", "head.fc.")),
        UNRECOGNISED,
    ),
    "timm wrapper in safetensors": (_safetensors(lambda s: under("timm_model.", s)), UNRECOGNISED),
    "criterion beside the network": (
        _torch(lambda s: {"state_dict": {**under("model.", s), "criterion.weight": torch.ones(4)}}),
        UNRECOGNISED,
    ),
    "averaged": (_torch(lambda s: {**under("module.", s), "n_averaged": torch.tensor(3)}), UNRECOGNISED),
    "two encoders and a queue": (
        _torch(lambda s: {**under("encoder_q.", s), **under("encoder_k.", s), "queue": torch.ones(9, 9)}),
        UNRECOGNISED,
    ),
    "normaliser inside": (
        _torch(lambda s: {**under("model.", s), "normalize.mean": torch.ones(1, 3, 1, 1)}),
        UNRECOGNISED,
    ),
    "profiled": (_torch(_profiled), UNRECOGNISED),
    "head without bias": (
        _torch(lambda s: {name: tensor for name, tensor in s.items() if name != "linear.bias"}),
        UNRECOGNISED,
    ),
    # the document
    "two sets": (
        _torch(lambda s: {"my_net": s, "other": {"a": torch.ones(2, 2)}}),
        Code.NOT_A_CHECKPOINT,
    ),
    "two sets and arguments": (
        _torch(lambda s: {"my_net": s, "other": {"a": torch.ones(2, 2)}, "args": argparse.Namespace(lr=1)}),
        Code.NOT_A_CHECKPOINT,
    ),
    "arrays of NumPy": (
        _torch(lambda s: {"weights": {name: tensor.numpy() for name, tensor in s.items()}}),
        BESIDE,
    ),
    "an object of weights": (_torch(lambda s: {"model": _Weights(s)}), BESIDE),
    "whole network": (_torch(_whole), Code.PICKLED_MODULE),
    "whole network under a key": (_torch(lambda s: {"epoch": 3, "model": _whole(s)}), Code.PICKLED_MODULE),
    # tensors
    "bool": (_torch(_with(mask=torch.ones(3, dtype=torch.bool))), UNRECOGNISED),
    "empty": (_torch(_with(boxes=torch.ones(0, 4))), UNRECOGNISED),
    "expanded": (_torch(_with(mask=torch.ones(1).expand(64))), UNRECOGNISED),
    "sparse": (_torch(lambda s: {**s, "linear.bias": s["linear.bias"].to_sparse()}), TENSOR),
    "float8": (_torch(lambda s: {**s, "linear.bias": s["linear.bias"].to(torch.float8_e4m3fn)}), TENSOR),
    "float8 in safetensors": (
        _safetensors(lambda s: {**s, "linear.bias": s["linear.bias"].to(torch.float8_e5m2)}),
        TENSOR,
    ),
    # the container
    "packed again": (_repacked(compression=zipfile.ZIP_DEFLATED), Code.UNSUPPORTED_FORMAT),
    "packed again, stored": (_repacked(), Code.UNSUPPORTED_FORMAT),
    "index of safetensors": (_shards("safetensors", "model.safetensors.index.json"), Code.NOT_A_CHECKPOINT),
    "index of torch files": (_shards("bin", "pytorch_model.bin.index.json"), Code.NOT_A_CHECKPOINT),
    "NumPy archive": (_npz, Code.UNSUPPORTED_FORMAT),
    "bare pickle": (_bare_pickle, Code.UNSUPPORTED_FORMAT),
}
