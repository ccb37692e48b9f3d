"""Teacher files that people have: those that are taken, and those refused with a line that mends them.

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


def _with_copy(state: State) -> State:
    """Every network of a MadryLab checkpoint is there twice, with its normaliser."""
    normaliser = {
        "module.normalizer.new_mean": torch.ones(3, 1, 1),
        "module.normalizer.new_std": torch.ones(1),
    }
    copies = under("module.model.", state) | under("module.attacker.model.", state)
    return normaliser | copies


def _distorted(state: State) -> State:
    """Weights that are no averages: what must not be taken."""
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _odd(state: State) -> State:
    return {
        **state,
        "mask": torch.ones(3, dtype=torch.bool),
        "boxes": torch.ones(0, 4),
        "expanded": torch.ones(1).expand(64),
        "graph": torch.eye(4).to_sparse(),
        "wave": torch.ones(2, dtype=torch.complex64),
        "best.loss": torch.tensor(float("inf")),
        "layer1.0.attn_mask": torch.ones(4, 4, dtype=torch.bool),
        "layer1.0.index": torch.arange(16).reshape(4, 4),
    }


# What is strange -> what is saved, the prefix that is found, and the warnings.
TAKEN: dict[str, tuple[Callable[[State], Any], str, tuple[str, ...]]] = {
    # a larger module
    "DataParallel": (lambda s: under("module.", s), "module.", ()),
    "backbone": (lambda s: under("backbone.", s), "backbone.", ()),
    "cnn": (lambda s: {"state_dict": under("cnn.", s)}, "cnn.", ()),
    "the name of the network": (lambda s: under("resnet.", s), "resnet.", ()),
    "timm wrapper": (lambda s: under("timm_model.", s), "timm_model.", ()),
    "two wrappers": (lambda s: under("net.module.", s), "net.module.", ()),
    "compiled and parallel": (lambda s: under("module._orig_mod.", s), "module.", ()),
    "FSDP inside": (
        lambda s: {
            f"_fsdp_wrapped_module.{name}".replace("layer1.0.", "layer1.0._fsdp_wrapped_module."): tensor
            for name, tensor in s.items()
        },
        "",
        (),
    ),
    "backbone under the names of another implementation": (
        lambda s: under("backbone.", renamed(s, "linear.", "fc.")),
        "backbone.",
        (),
    ),
    # more beside the network
    "criterion": (
        lambda s: {"state_dict": {**under("model.", s), "criterion.weight": torch.ones(4)}},
        "model.",
        ("tensors_left_out",),
    ),
    "centers of a loss": (
        lambda s: {**under("model.", s), "loss_fn.centers": torch.ones(4, 64)},
        "model.",
        ("tensors_left_out",),
    ),
    "averaged model": (
        lambda s: {**under("module.", s), "n_averaged": torch.tensor(3)},
        "module.",
        ("tensors_left_out",),
    ),
    "metrics": (
        lambda s: {**under("net.", s), "acc.correct": torch.zeros(4), "acc.total": torch.tensor(9)},
        "net.",
        ("tensors_left_out",),
    ),
    "two encoders and a queue": (
        lambda s: {
            **under("encoder_q.", s),
            **under("encoder_k.", _distorted(s)),
            "queue": torch.ones(9, 9),
        },
        "encoder_q.",
        ("tensors_left_out",),
    ),
    "normaliser": (
        lambda s: {**under("model.", s), "normalize.mean": torch.ones(1, 3, 1, 1)},
        "model.",
        ("tensors_left_out",),
    ),
    "normaliser without a prefix": (
        lambda s: {"mu": torch.ones(1, 3, 1, 1), "sigma": torch.ones(1, 3, 1, 1), **s},
        "",
        ("tensors_left_out",),
    ),
    "a copy and a normaliser": (_with_copy, "module.model.", ("tensors_left_out",)),
    "profiled": (_profiled, "", ("tensors_left_out",)),
    "profiled under a prefix": (
        lambda s: under("module.", _profiled(s)),
        "module.",
        ("tensors_left_out",),
    ),
    "odd tensors": (_odd, "", ("tensors_left_out",)),
    # averages
    "EMA of timm": (
        lambda s: {"state_dict": _distorted(s), "state_dict_ema": s},
        "",
        ("averaged_weights",),
    ),
    "EMA of torchvision": (
        lambda s: {
            "model": _distorted(s),
            "model_ema": {"n_averaged": torch.tensor(9), **under("module.", s)},
        },
        "module.",
        ("averaged_weights", "tensors_left_out"),
    ),
    "EMA in one dict": (
        lambda s: {**under("model.", _distorted(s)), **under("ema_model.", s)},
        "ema_model.",
        ("averaged_weights", "tensors_left_out"),
    ),
    "DINO": (
        lambda s: {"student": under("module.", _distorted(s)), "teacher": s},
        "",
        ("averaged_weights",),
    ),
    "averages of parameters alone": (
        lambda s: {
            "model": s,
            "ema": {name: it for name, it in _distorted(s).items() if "running" not in name},
        },
        "",
        ("averaged_weights",),
    ),
    # the head
    "dropout in front of the head": (lambda s: renamed(s, "linear.", "linear.1."), "", ("head_assumed",)),
    "last_linear": (lambda s: renamed(s, "linear.", "last_linear."), "", ("head_assumed",)),
    "another name": (lambda s: renamed(s, "linear.", "my_head.out."), "", ("head_assumed",)),
    "backbone and head": (
        lambda s: renamed(under("backbone.", s), "backbone.linear.", "head.fc."),
        "backbone.",
        ("head_assumed",),
    ),
    "head without bias": (
        lambda s: {name: it for name, it in s.items() if name != "linear.bias"},
        "",
        (),
    ),
}


TENSOR = Code.UNSUPPORTED_TENSOR
BESIDE = Code.UNSAFE_CHECKPOINT

# What is wrong -> how the file is written, and the code it is refused with.
REFUSED: dict[str, tuple[Write, Code]] = {
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
