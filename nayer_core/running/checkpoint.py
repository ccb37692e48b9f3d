"""Checkpoints: the state that a bit-exact resume needs, written so that a crash leaves a good one.

A folder holds generations, numbered in order, and each round of the bank's images once:

    state-00000003.safetensors    tensors of generation 3
    state-00000003.json           facts about the run, the bank's segments, hashes of the other files
    bank-000000004800.safetensors the round whose first image was the 4,800th ever added

A generation is valid if its JSON exists and all hashes agree. Each file is written under a temporary name,
synced and renamed. The two generations before the newest are kept.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.images.memory_bank import MemoryBank, Segment

GENERATIONS_KEPT = 3


@dataclass(frozen=True)
class SavedState:
    """A generation that was loaded: tensors, and the facts saved with them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True)
class _ValidGeneration:
    """A generation whose files agree with their hashes."""

    number: int
    files: dict[str, bytes]

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.files[f"state-{self.number:08d}.json"])
        return record

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.record["facts"]
        return facts


class CheckpointFolder:
    """Generations of a run's state in one folder.

    Args:
        path: created if it does not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._segment_hashes: dict[int, str] = {}

    def save(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], bank: MemoryBank
    ) -> dict[str, str]:
        """Write a new generation and delete those that are no longer needed.

        Args:
            tensors: on any device.
            facts: JSON values.
            bank: its segments are written unless the folder has them already.

        Returns:
            The files of this generation and their sha256, the JSON included.
        """
        number = max(self._generations(), default=-1) + 1
        files = {_bank_file(segment.start): self._save_segment(segment, bank) for segment in bank.segments}
        state_name = f"state-{number:08d}.safetensors"
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        files[state_name] = self._write(state_name, save(plain))
        segments = [[segment.start, segment.length] for segment in bank.segments]
        record = {"facts": dict(facts), "segments": segments, "files": files}
        json_name = f"state-{number:08d}.json"
        json_hash = self._write(json_name, json.dumps(record).encode())
        self._drop_superfluous()
        return {**files, json_name: json_hash}

    def load(self, bank: MemoryBank) -> SavedState:
        """Load the newest valid generation, and refill the bank.

        Raises:
            TrainingError: `checkpoint_invalid` if no generation is valid.
        """
        newest = next(self._whole_generations(), None)
        if newest is not None:
            return self._take_up(newest, bank)
        raise TrainingError(
            ErrorCode.CHECKPOINT_INVALID,
            f"No whole checkpoint among {len(self._generations())} generations.",
            "Start the run again without the checkpoint.",
        )

    def go_back(self, bank: MemoryBank, usable: Callable[[dict[str, Any]], bool]) -> SavedState | None:
        """Load the newest valid generation with usable facts, refill the bank, and delete all newer ones.

        Returns:
            None if there is no such generation; then the folder and the bank are empty.
        """
        generation = next((one for one in self._whole_generations() if usable(one.facts)), None)
        if generation is None:
            self.clear()
            bank.clear()
            return None
        self._drop_after(generation.number)
        return self._take_up(generation, bank)

    def clear(self) -> None:
        """Delete all generations."""
        self._drop_after(-1)
        self._segment_hashes = {}

    @property
    def is_empty(self) -> bool:
        """Whether the folder has no generation."""
        return not self._generations()

    def _whole_generations(self) -> Iterator[_ValidGeneration]:
        """Newest first."""
        for number in sorted(self._generations(), reverse=True):
            files = self._read_generation(number)
            if files is not None:
                yield _ValidGeneration(number, files)

    def _take_up(self, generation: _ValidGeneration, bank: MemoryBank) -> SavedState:
        bank.clear()
        self._segment_hashes = {}  # from here the run may write other images under the same names
        for start, length in generation.record["segments"]:
            segment = Segment(start, length)
            name = _bank_file(segment.start)
            self._segment_hashes[start] = generation.record["files"][name]
            restored = load(generation.files[name])
            bank.restore(segment, restored["images"], restored["labels"])
        return SavedState(
            load(generation.files[f"state-{generation.number:08d}.safetensors"]), generation.facts
        )

    def _read_generation(self, number: int) -> dict[str, bytes] | None:
        """Return all files of a generation; None if one is missing or its hash differs."""
        name = f"state-{number:08d}.json"
        try:
            files = {name: (self.path / name).read_bytes()}
            for other, expected in json.loads(files[name])["files"].items():
                files[other] = (self.path / other).read_bytes()
                if hashlib.sha256(files[other]).hexdigest() != expected:
                    return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return files

    def _save_segment(self, segment: Segment, bank: MemoryBank) -> str:
        if segment.start not in self._segment_hashes:
            images, labels = bank.read(segment)
            content = save({"images": images.cpu(), "labels": labels.cpu()})
            self._segment_hashes[segment.start] = self._write(_bank_file(segment.start), content)
        return self._segment_hashes[segment.start]

    def _drop_after(self, newest: int) -> None:
        """Delete later generations. The JSON goes first: without it a generation is not valid."""
        for number in self._generations():
            if number > newest:
                for suffix in ("json", "safetensors"):
                    (self.path / f"state-{number:08d}.{suffix}").unlink(missing_ok=True)

    def _drop_superfluous(self) -> None:
        newest = sorted(self._generations())[-GENERATIONS_KEPT:]
        files_in_use: set[str] = set()
        for number in newest:
            record = json.loads((self.path / f"state-{number:08d}.json").read_bytes())
            files_in_use |= {f"state-{number:08d}.json", *record["files"]}
        for path in self._files():
            if path.name not in files_in_use:
                path.unlink(missing_ok=True)
        self._segment_hashes = {
            start: digest
            for start, digest in self._segment_hashes.items()
            if _bank_file(start) in files_in_use
        }

    def _write(self, name: str, content: bytes) -> str:
        path, unfinished = self.path / name, self.path / f".{name}.unfinished"
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)  # makes room on a full disk
            raise
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return hashlib.sha256(content).hexdigest()

    def _files(self) -> Iterator[Path]:
        yield from self.path.glob("state-*")
        yield from self.path.glob("bank-*")

    def _generations(self) -> list[int]:
        return [int(path.stem.removeprefix("state-")) for path in self.path.glob("state-*.json")]


def _bank_file(start: int) -> str:
    return f"bank-{start:012d}.safetensors"


def below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `name.`, by the rest of their names."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
