"""What the jail tells about a teacher file beside its tensors; its parent checks each value."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads.file_kind import FileKind
from nayer_core.uploads.teacher_file import TeacherFile
from nayer_core.uploads.tensor_checks import OddTensor
from nayer_core.uploads.weight_sets import Choice, WeightSet

_MOST_OBJECTS = 20  # that are reported by name

_Text = Annotated[str, StringConstraints(max_length=1000)]
_Keys = Annotated[tuple[str, ...], Field(max_length=8)]


class _OddFacts(BaseModel):
    code: ErrorCode
    message: _Text
    hint: _Text
    shape: tuple[int, ...] | None


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: FileKind
    keys: _Keys
    averaged: bool
    other: _Keys | None
    incomplete: bool
    objects: Annotated[tuple[_Text, ...], Field(max_length=_MOST_OBJECTS)]
    odd: dict[str, _OddFacts]


def facts_of(file: TeacherFile) -> dict[str, Any]:
    """Return what is known of a file, without its tensors, as JSON."""
    choice = file.choice
    return _Facts(
        kind=file.kind,
        keys=choice.weights.keys,
        averaged=choice.averaged,
        other=choice.other,
        incomplete=choice.incomplete,
        objects=file.objects[:_MOST_OBJECTS],
        odd={
            name: _OddFacts(code=it.error.code, message=it.error.message, hint=it.error.hint, shape=it.shape)
            for name, it in file.odd.items()
        },
    ).model_dump(mode="json")


def with_tensors(facts: dict[str, Any], tensors: dict[str, Tensor]) -> TeacherFile:
    """Return the file that a confined reader described.

    Raises:
        ValueError: the description is not one that `facts_of` gives.
    """
    checked = _Facts.model_validate(facts)
    odd = {
        name: OddTensor(TeacherError(it.code, it.message, it.hint), it.shape)
        for name, it in checked.odd.items()
    }
    choice = Choice(WeightSet(checked.keys, {}), checked.averaged, checked.other, checked.incomplete)
    return TeacherFile(checked.kind, tensors, odd, choice, checked.objects)
