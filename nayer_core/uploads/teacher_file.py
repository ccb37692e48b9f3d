"""Reads the tensors of a stranger's teacher: dense, finite and float32. Runs in the jail."""

import functools
import io
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.contract.spec import TeacherWeights
from nayer_core.uploads import no_weights, safetensors_layout, torch_file
from nayer_core.uploads.client_file import ClientFile
from nayer_core.uploads.file_kind import FileKind, identify
from nayer_core.uploads.pickle_names import of_objects
from nayer_core.uploads.pickled_values import PickledDict, PickledTensor
from nayer_core.uploads.refusals import AGAIN, WRITES, refuse
from nayer_core.uploads.stored_tensors import BadStorageError, Storages, check_view, dtype_of, tensors_of
from nayer_core.uploads.tensor_checks import (
    OddTensor,
    canonical_numbers,
    check_names,
    check_size,
    oddity,
    oddity_of_numbers,
)
from nayer_core.uploads.weight_sets import Choice, Value, WeightSet, choose_set, find_sets

MAX_ODD_TENSORS = 1000  # that are left out; a network has a mask for each layer, at most


@dataclass(frozen=True)
class TeacherFile:
    """The content of a teacher file.

    Attributes:
        kind: its layout.
        tensors: float32, and int64 for counters and indices.
        odd: name -> tensor that was not read, an error only if the network needs it.
        choice: the set of tensors that was read, without its entries, and what else there was.
        objects: functions and classes whose objects were left out.
    """

    kind: FileKind
    tensors: dict[str, Tensor]
    odd: dict[str, OddTensor] = field(default_factory=dict)
    choice: Choice = field(default_factory=lambda: Choice(WeightSet((), {})))
    objects: tuple[str, ...] = ()

    def without_tensors(self) -> "TeacherFile":
        """What is known of the file, when its tensors are in a network."""
        return replace(self, tensors={})

    @property
    def source(self) -> ClientFile:
        """Where the tensors are, for hints that change the file."""
        is_safetensors = self.kind is FileKind.SAFETENSORS
        return ClientFile(is_safetensors, self.choice.weights.keys, needs_trust=bool(self.objects))


def read_teacher(file: BufferedReader, weights: TeacherWeights = "auto") -> TeacherFile:
    """Read a state dict out of any of the accepted layouts.

    Args:
        file: open for reading.
        weights: which set is wanted, where the file has trained and averaged weights.

    Raises:
        TeacherError: the file is no teacher, is damaged, or has content that no teacher needs.
    """
    size = os.fstat(file.fileno()).st_size
    kind = identify(file, size)
    if kind is FileKind.SAFETENSORS:
        return _read_safetensors(file, size)
    opened = (
        torch_file.open_archive(file, size)
        if kind is FileKind.TORCH_ZIP
        else torch_file.open_legacy(file, size)
    )
    pickle = opened.pickle
    sets = find_sets(pickle.root)
    no_weights.refuse_harmful(pickle, sets)
    if not sets or not isinstance(pickle.root, PickledDict):
        raise no_weights.error(pickle)
    objects = tuple(of_objects(pickle.names))
    choice = choose_set(pickle.root, sets, weights, needs_trust=bool(objects))
    source = ClientFile(keys=choice.weights.keys, needs_trust=bool(objects))
    try:
        tensors, odd = _read_set(choice.weights.entries, opened.storages, size, source)
    except BadStorageError as error:
        raise torch_file.damaged(error) from error
    return TeacherFile(kind, tensors, odd, choice, objects)


@functools.cache
def warm_up() -> None:
    """Load, once and before the jail, the code that reading in the jail would import lazily."""
    for new_layout in (True, False):
        with tempfile.NamedTemporaryFile() as file:
            state = {"a": torch.ones(2, 2, dtype=torch.float16), "b": torch.ones(1, dtype=torch.bfloat16)}
            torch.save({"weights": state}, file, _use_new_zipfile_serialization=new_layout)
            file.flush()
            with Path(file.name).open("rb") as saved:
                safetensors_layout.write_tensors(io.BytesIO(), read_teacher(saved).tensors)


def _read_set(
    entries: Mapping[str, Value], storages: Storages, file_bytes: int, source: ClientFile
) -> tuple[dict[str, Tensor], dict[str, OddTensor]]:
    check_names(entries)
    odd: dict[str, OddTensor] = {}
    plain: dict[str, PickledTensor] = {}
    shown_bytes = 0
    for name, value in entries.items():
        if isinstance(value, PickledTensor):
            check_view(value)
        error = oddity(name, value, source)
        if error is not None:
            odd[name] = OddTensor(error, value.size if isinstance(value, PickledTensor) else None)
        elif isinstance(value, PickledTensor):
            plain[name] = value
            dtype = dtype_of(value.storage)
            shown_bytes += math.prod(value.size) * (dtype.itemsize if dtype else 1)
            check_size(shown_bytes, file_bytes, source)
    numbers: dict[str, Tensor] = {}
    for name, tensor in tensors_of(plain, storages):
        _sort(name, canonical_numbers(name, tensor), numbers, odd, tuple(tensor.shape))
    return _in_order(entries, numbers, odd)


def _sort(
    name: str,
    result: Tensor | TeacherError,
    numbers: dict[str, Tensor],
    odd: dict[str, OddTensor],
    shape: tuple[int, ...],
) -> None:
    if isinstance(result, TeacherError):
        odd[name] = OddTensor(result, shape)
    else:
        numbers[name] = result


def _in_order(
    names: Mapping[str, object], numbers: dict[str, Tensor], odd: dict[str, OddTensor]
) -> tuple[dict[str, Tensor], dict[str, OddTensor]]:
    """Return both in the order of the file; an error if there is no tensor, or many odd ones."""
    if odd and (not numbers or len(odd) > MAX_ODD_TENSORS):
        raise next(odd[name].error for name in names if name in odd)
    return {name: numbers[name] for name in names if name in numbers}, odd


def _read_safetensors(file: BufferedReader, size: int) -> TeacherFile:
    source = ClientFile(safetensors=True)
    try:
        tensors = safetensors_layout.read_tensors(file, size)
    except safetensors_layout.IncompleteError as error:
        raise refuse(ErrorCode.TRUNCATED_FILE, f"The safetensors file {error}.", AGAIN) from error
    except safetensors_layout.UnknownDtypeError as error:
        line = source.edited("sd = {k: v.float() for k, v in sd.items()}")
        raise refuse(
            ErrorCode.UNSUPPORTED_TENSOR, f"The safetensors file {error}.", f"{WRITES} {line}"
        ) from error
    except safetensors_layout.BadLayoutError as error:
        raise refuse(ErrorCode.DAMAGED_FILE, f"The safetensors file {error}.", AGAIN) from error
    check_names(tensors)
    numbers: dict[str, Tensor] = {}
    odd: dict[str, OddTensor] = {}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        problem = oddity_of_numbers(name, tensor.dtype, shape, source)
        _sort(name, problem or canonical_numbers(name, tensor), numbers, odd, shape)
    return TeacherFile(FileKind.SAFETENSORS, *_in_order(tensors, numbers, odd))
