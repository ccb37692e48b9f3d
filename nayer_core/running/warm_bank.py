"""A warm-up in one file: a later run on the same teacher begins after it.

The file holds the state of a run after its last warm-up epoch: images, labels, and the generator, noisy layer
and statistics that made them. It does not depend on the student, so any run on the teacher can use it. With
the seed of the bank a run continues bit by bit as if it had warmed up itself; with another seed it draws its
own random numbers from there on.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nayer_core.contract.events import BankEvent, Phase
from nayer_core.images.memory_bank import Segment
from nayer_core.networks.weights import file_sha256
from nayer_core.running.run import Run

_FACTS = "nayer.bank"
_PREFIX = "synthesizer."  # of the tensors that are not images or labels


class BankUnusable(Exception):
    """The file is damaged, or it was made for another teacher, synthesis or label codes."""


def is_warm(run: Run) -> bool:
    """Whether a run has just finished its warm-up."""
    return 0 < run.plan.warmup_epochs == run.method.epoch


def save_warm_bank(run: Run, path: Path, *, key: str, seed: int, made_by: str | None) -> None:
    """Write the warm-up of a run to a file.

    Args:
        run: has just finished its warm-up (`is_warm`).
        path: the file to write.
        key: `contract.banks.bank_key` of the run.
        seed: of the run.
        made_by: the name of the run, for the model cards of runs that use the bank.
    """
    bank = run.method.bank
    tensors = {f"{_PREFIX}{name}": value for name, value in run.method.warm_up().items()}
    segments = [bank.read(segment) for segment in bank.segments]
    tensors["images"] = torch.cat([images for images, _ in segments])
    tensors["labels"] = torch.cat([labels for _, labels in segments])
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {
        "key": key,
        "seed": seed,
        "made_by": made_by,
        "device": run.machine.device.type,
        "segments": [[segment.start, segment.length] for segment in bank.segments],
        "digest": _digest(plain),
    }
    unfinished = path.with_name(f".{path.name}.unfinished")
    save_file(plain, unfinished, metadata={_FACTS: json.dumps(facts)})
    unfinished.replace(path)


def take_warm_bank(run: Run, path: Path, *, key: str, seed: int) -> BankEvent:
    """Make a new run begin after the warm-up of another.

    Args:
        run: has done no step; it does not change if the bank cannot be used.
        path: a file of `save_warm_bank`.
        key: `contract.banks.bank_key` of the run.
        seed: of the run.

    Returns:
        The event that reports it.

    Raises:
        BankUnusable: the run must warm up itself.
    """
    tensors, facts = _read(path)
    if facts["key"] != key:
        raise BankUnusable("it was made for another teacher, synthesis or label codes")
    warm_up = {
        name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)
    }
    if (facts["seed"], facts["device"]) != (seed, run.machine.device.type):
        del warm_up["rng"]
    run.method.begin_after_warm_up(warm_up)
    first = 0
    for start, length in facts["segments"]:
        rows = slice(first, first + length)
        segment = Segment(start, length)
        run.method.bank.restore(segment, tensors["images"][rows], tensors["labels"][rows])
        first += length
    steps = run.plan.steps.items()
    run.progress.skip({kind: step.count for kind, step in steps if step.phase is Phase.WARMUP})
    event = BankEvent(
        images=len(tensors["images"]),
        made_by=facts["made_by"],
        seed=facts["seed"],
        sha256=file_sha256(path),
    )
    run.warm_bank = event.model_dump(exclude={"time", "event"})
    return event


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        whole = facts["digest"] == _digest(tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BankUnusable("it is damaged") from error
    if not whole:
        raise BankUnusable("it is damaged")
    return tensors, facts


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
