"""Files as training scripts leave them: a state dict, and beside it whatever the script had at hand.

Packages that are not installed here are imitated by classes with their names and the same way into a pickle.
"""

import argparse
import collections
import contextlib
import datetime
import functools
import io
import pathlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Tensor]


@contextlib.contextmanager
def foreign(*names: str) -> Iterator[dict[str, Any]]:
    """Classes of packages that are not installed, by name, which can be pickled inside of the block."""
    classes: dict[str, Any] = {}
    with contextlib.ExitStack() as modules:
        for name in names:
            module, _, short_name = name.rpartition(".")
            parts = module.split(".")
            for depth in range(1, len(parts) + 1):
                parent = ".".join(parts[:depth])
                if parent not in sys.modules:
                    sys.modules[parent] = types.ModuleType(parent)
                    modules.callback(sys.modules.pop, parent)
            kind = dict if short_name in ("EasyDict", "CfgNode", "ConfigDict") else object
            classes[short_name] = type(short_name, (kind,), {"__module__": module})
            setattr(sys.modules[module], short_name, classes[short_name])
        yield classes


def with_attributes(kind: Any, **attributes: Any) -> Any:
    made = kind()
    made.__dict__.update(attributes)
    return made


def network_and_training(state: State) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network with an optimiser that has made a step: its state has tensors of its own."""
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return network, optimizer


def timm(state: State) -> Any:
    """timm's `model_best.pth.tar`."""
    _, optimizer = network_and_training(state)
    args = argparse.Namespace(
        lr=0.1, mean=None, decay_epochs=[30, 60], opt_betas=(0.9, 0.999), log=pathlib.Path("output/train")
    )
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7}
    document = {"epoch": 3, "arch": "resnet20", "state_dict": state, "optimizer": optimizer.state_dict()}
    return document | {"version": 2, "args": args, "amp_scaler": scaler, "metric": np.float64(81.25)}


def references(state: State) -> Any:
    """torchvision's reference script for classification."""
    _, optimizer = network_and_training(state)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 4])
    args = argparse.Namespace(lr=0.1, device="cuda", interpolation="bilinear", opt=torch.optim.SGD)
    return {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),  # a Counter
        "epoch": 89,
        "args": args,
    }


def lightning(state: State) -> Any:
    """A checkpoint of Lightning whose hyper-parameters are a configuration of Hydra."""
    names = ("dictconfig.DictConfig", "base.ContainerMetadata", "base.Metadata", "nodes.AnyNode")
    with foreign(*(f"omegaconf.{name}" for name in names), "my_project.losses.Focal") as classes:
        metadata = with_attributes(classes["ContainerMetadata"], object_type=dict, key=None, flags={})
        node = with_attributes(
            classes["AnyNode"],
            _val=0.1,
            _metadata=with_attributes(classes["Metadata"], optional=True, ref_type=Any),
        )
        config = with_attributes(
            classes["DictConfig"], _metadata=metadata, _parent=None, _content={"lr": node}
        )
        return _saved(
            {
                "epoch": 9,
                "global_step": 1000,
                "pytorch-lightning_version": "2.4.0",
                "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
                "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 9}}}},
                "callbacks": {"ModelCheckpoint{'monitor': 'acc'}": {"best_model_score": torch.tensor(0.81)}},
                "optimizer_states": [network_and_training(state)[1].state_dict()],
                "lr_schedulers": [],
                "hparams_name": "cfg",
                "hyper_parameters": {
                    "cfg": config,
                    "loss": functools.partial(classes["Focal"], 2),
                    "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
                },
            }
        )


def old_lightning(state: State) -> Any:
    """Callbacks were under their classes once."""
    with foreign("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint") as classes:
        return _saved(
            {"state_dict": state, "callbacks": {classes["ModelCheckpoint"]: {"best": torch.tensor(0.8)}}}
        )


def mmengine(state: State) -> Any:
    """A checkpoint of mmengine: arrays and deques in its buffers of history."""
    name = "mmengine.logging.history_buffer.HistoryBuffer"
    with foreign(name, "mmengine.config.config.ConfigDict") as classes:
        buffer = with_attributes(
            classes["HistoryBuffer"],
            _max_length=1_000_000,
            _log_history=np.arange(5.0),
            _count_history=np.ones(5, dtype=np.int64),
            _statistics_methods=collections.OrderedDict(),
        )
        config = classes["ConfigDict"](type="ImageClassifier")
        return _saved(
            {
                "meta": {"epoch": 3, "time": datetime.datetime(2026, 1, 2, 3), "cfg": config, "seed": 0},
                "message_hub": {"log_scalars": {"train/loss": buffer}, "runtime_info": {"iter": np.int64(7)}},
                "state_dict": collections.OrderedDict(state),
                "param_schedulers": [],
            }
        )


def swin(state: State) -> Any:
    """Swin, ConvNeXt and their kin keep a yacs or EasyDict configuration."""
    with foreign("yacs.config.CfgNode", "easydict.EasyDict") as classes:
        node = classes["CfgNode"](DATA=classes["CfgNode"](IMG_SIZE=224))
        node.__dict__.update(__immutable__=True, __deprecated_keys__=set())
        return _saved(
            {"model": state, "config": node, "cfg": classes["EasyDict"](lr=0.1), "max_accuracy": 81}
        )


def assorted(state: State) -> Any:
    """The rest: each of these made a file refused once."""
    return {
        "state_dict": state,
        "random": {"numpy": np.random.RandomState(0).get_state(), "torch": torch.get_rng_state()},
        "history": collections.defaultdict(list, loss=[1.0, 0.5], arrays=[np.zeros((3, 3))]),
        "seen": collections.Counter("abc"),
        "recent": collections.deque([1, 2], maxlen=3),
        "versions": {"torch": torch.torch_version.TorchVersion("2.6.0"), "made": datetime.date(2026, 1, 1)},
        "save_dir": pathlib.PosixPath("runs/exp1"),
        "span": datetime.timedelta(hours=3),
        "dtype": torch.float32,
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "criterion": nn.CrossEntropyLoss(weight=torch.ones(4)),
        "act": nn.functional.relu,
        "scheduler": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 3),
        "generator": np.random.default_rng(0),
        "flags": {1, 2, frozenset({3})},
        "complex": 1j,
        "blob": bytearray(b"abc"),
        "range": range(3),
        "name": types.SimpleNamespace(a=1),
        "text": np.str_("resnet"),
        "nested": (np.bool_(True), [np.float32(1.5), {"deep": argparse.Namespace(x=1)}]),
    }


def module_beside(state: State) -> Any:
    """The whole network, and its state dict too."""
    network, _ = network_and_training(state)
    return {"net": network, "state_dict": state}


def extra_state(state: State) -> Any:
    """Layers may save anything with their tensors."""
    return {**state, "metric._extra_state": argparse.Namespace(a=1), "layer._extra_state": None}


def attributes_on_tensors(state: State) -> Any:
    """Parameters and tensors that were given attributes."""
    changed = {}
    for index, (name, tensor) in enumerate(state.items()):
        value = nn.Parameter(tensor, requires_grad=False) if index % 2 else tensor.clone()
        value.note = "decay"  # type: ignore[attr-defined] # any attribute
        changed[name] = value
    return changed


class _Saved:
    """A document that had to be pickled while its classes existed."""

    def __init__(self, contents: dict[bool, bytes]) -> None:
        self.contents = contents


def _saved(document: Any) -> _Saved:
    return _Saved({layout: _bytes(document, layout) for layout in (True, False)})


def _bytes(document: Any, new_layout: bool, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(document, out, _use_new_zipfile_serialization=new_layout, **options)
    return out.getvalue()


def contents(case: str, state: State, *, new_layout: bool = True, **options: Any) -> bytes:
    """The bytes of one of `FILES`."""
    document = FILES[case][0](state)
    if isinstance(document, _Saved):
        return document.contents[new_layout]
    return _bytes(document, new_layout, **options)


# Name -> what is saved, and a name that the warning must have (None: no warning).
FILES: dict[str, tuple[Callable[[State], Any], str | None]] = {
    "timm": (timm, "argparse.Namespace"),
    "torchvision's references": (references, "argparse.Namespace"),
    "Lightning with Hydra": (lightning, "omegaconf.dictconfig.DictConfig"),
    "old Lightning": (old_lightning, "ModelCheckpoint"),
    "mmengine": (mmengine, "HistoryBuffer"),
    "Swin": (swin, "yacs.config.CfgNode"),
    "all that there is": (assorted, "torch.nn.modules.loss.CrossEntropyLoss"),
    "a network beside": (module_beside, "torch.nn.modules.container.Sequential"),
    "extra state": (extra_state, "argparse.Namespace"),
    "attributes": (attributes_on_tensors, None),
}
