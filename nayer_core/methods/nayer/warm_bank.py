"""A warm-up kept in one file, so that the next run on the same teacher begins at its end.

The file holds what a run is after its last warm-up epoch: images and labels, the statistics' average,
generator and noisy layer, and the random numbers' state. No student has had a part in it, so any may
follow. With the seed that made the bank a run goes on exactly as if it had warmed up itself, bit by
bit; with another seed it draws its own numbers from there on.
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

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import BankEvent
from nayer_core.methods.parts.memory_bank import Segment
from nayer_core.networks.weights import file_sha256
from nayer_core.running.progress import Step
from nayer_core.running.run_state import Position, RunState

_FACTS = "nayer.bank"


class BankUnusable(Exception):
    """The file is damaged, or was made for another teacher, synthesis or label codes."""


def is_warm(run: RunState) -> bool:
    """Whether a run stands right behind its warm-up."""
    return 0 < run.config.warmup_epochs == run.position.epoch


def save_warm_bank(run: RunState, path: Path, *, key: str, seed: int, made_by: str | None) -> None:
    """Write a run that `is_warm` to a file.

    Args:
        run: stands right behind its warm-up.
        path: the file to write.
        key: `contract.banks.bank_key` of the run.
        seed: of the run.
        made_by: what the run is called, for the model cards of runs that use the bank.
    """
    tensors = {f"synthesizer.{name}": value for name, value in run.synthesizer.snapshot().items()}
    parts = [run.bank.read(segment) for segment in run.bank.segments]
    tensors["images"] = torch.cat([images for images, _ in parts])
    tensors["labels"] = torch.cat([labels for _, labels in parts])
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {
        "key": key,
        "seed": seed,
        "made_by": made_by,
        "device": run.bank.images.device.type,
        "segments": [[segment.start, segment.length] for segment in run.bank.segments],
        "digest": _digest(plain),
    }
    unfinished = path.with_name(f".{path.name}.unfinished")
    save_file(plain, unfinished, metadata={_FACTS: json.dumps(facts)})
    unfinished.replace(path)


def take_warm_bank(run: RunState, path: Path, *, key: str, seed: int) -> BankEvent:
    """Put a run that has not begun behind its warm-up.

    Args:
        run: freshly made; untouched where the bank cannot be used.
        path: a file of `save_warm_bank`.
        key: `contract.banks.bank_key` of the run.
        seed: of the run.

    Returns:
        What is to be told of it.

    Raises:
        BankUnusable: the run must warm up itself.
    """
    tensors, facts = _read(path)
    if facts["key"] != key:
        raise BankUnusable("it was made for another teacher, synthesis or label codes")
    state = {name.removeprefix("synthesizer."): value for name, value in tensors.items()}
    if (facts["seed"], facts["device"]) != (seed, run.bank.images.device.type):
        state["rng"] = run.synthesizer.rng.get_state()
    run.synthesizer.restore(state)
    first = 0
    for start, length in facts["segments"]:
        rows = slice(first, first + length)
        run.bank.restore(Segment(start, length), tensors["images"][rows], tensors["labels"][rows])
        first += length
    rounds = run.config.warmup_epochs * run.config.warmup_rounds_per_epoch
    run.position = Position(epoch=run.config.warmup_epochs, rounds_done=rounds)
    run.progress.skip(_warmup_only(run.config))
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


def _warmup_only(config: DistillConfig) -> dict[Step, int]:
    rounds = config.warmup_epochs * config.warmup_rounds_per_epoch
    return {Step.WARMUP: rounds * config.generator_steps, Step.ADVERSARIAL: 0, Step.STUDENT: 0}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
