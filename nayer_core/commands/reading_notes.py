"""What a client should know of how a teacher's file was read, as warnings."""

import re
from collections.abc import Iterable, Sequence

from nayer_core.contract.events import WarningEvent
from nayer_core.networks.recognition import Recognition
from nayer_core.uploads.client_file import subscripts
from nayer_core.uploads.refusals import printable
from nayer_core.uploads.weight_sets import Choice

_MOST_NAMED = 5
_MOST_PLACE_CHARS = 80
_NORMALISER = re.compile(r"(^|\.)(mean|std|mu|sigma)$")
_COUNTERS = re.compile(r"(^|\.)num_batches_tracked$")
# Warnings that say what the teacher is; they are told in the model card too.
OF_THE_TEACHER = (
    "averaged_weights",
    "tensors_left_out",
    "head_assumed",
    "binary_head",
    "architecture_assumed",
)


def objects_note(names: Sequence[str]) -> list[WarningEvent]:
    """Say which objects beside the tensors were not read."""
    if not names:
        return []
    message = (
        f"The teacher file also holds objects of {enumeration(names)}. They were not read: no code of the"
        " file is run, and only its tensors are used."
    )
    return [WarningEvent(code="objects_left_out", message=message)]


def weights_note(choice: Choice, recognition: Recognition) -> list[WarningEvent]:
    """Say which weights were taken where the file has trained ones and averages of them."""
    raw = 'teacher.weights: "raw"'
    if choice.other is not None:
        taken, other = _place(choice.weights.keys), _place(choice.other)
        if choice.incomplete:
            message = (
                f"The averages of the weights {other} lack tensors of the network; those {taken} are taken."
            )
        elif choice.averaged:
            message = (
                f"The file has trained weights {other} and averages of them {taken}. The averages are taken;"
                f" {raw} takes the others."
            )
        else:
            message = f"The trained weights {taken} are taken, and not the averages of them {other}."
    elif recognition.is_averaged and recognition.left_out:
        message = (
            f"The averages of the weights, whose names begin with {printable(recognition.prefix)}, are taken;"
            f" {raw} takes the trained ones."
        )
    else:
        return []
    return [WarningEvent(code="averaged_weights", message=message)]


def tensors_note(names: Iterable[str]) -> list[WarningEvent]:
    """Say which tensors the network has no use for."""
    names = [name for name in names if not _COUNTERS.search(name)]
    if not names:
        return []
    message = (
        f"{len(names)} tensors are left out, which the network does not have: {enumeration(names)}. That is"
        " right if its answers do not depend on them."
    )
    statistics = [name for name in names if _NORMALISER.search(name)]
    if statistics:
        message += f" Give the values of {enumeration(statistics)} as teacher.normalization."
    return [WarningEvent(code="tensors_left_out", message=message)]


def head_note(recognition: Recognition, labels: Sequence[str] | None) -> list[WarningEvent]:
    """Say what was assumed of the last layer."""
    notes = []
    if recognition.moved:
        message = (
            f"{enumeration(recognition.moved)} are taken as the head of {recognition.architecture}. That is"
            " right if nothing but dropout is between them and the rest of the network."
        )
        notes.append(WarningEvent(code="head_assumed", message=message))
    if recognition.is_binary:
        negative, positive = map(printable, labels or ("the first label", "the second"))
        message = (
            "The teacher has one output, z, as after training with a sigmoid. It is taken as two classes with"
            f" the logits [0, z]: {negative} where z is below 0, {positive} where it is above. If that is the"
            " wrong way round, exchange the labels."
        )
        notes.append(WarningEvent(code="binary_head", message=message))
    return notes


def computed_note(names: Sequence[str]) -> list[WarningEvent]:
    """Say which weights were computed from their parts."""
    if not names:
        return []
    message = (
        f"{len(names)} weights were computed from the parts that the file holds of them (weight or spectral"
        f" normalisation, pruning): {enumeration(names)}."
    )
    return [WarningEvent(code="weights_computed", message=message)]


def assumption_note(recognition: Recognition) -> list[WarningEvent]:
    """Say which other networks the tensors fit, with the way to name one of these."""
    if not recognition.alternatives:
        return []
    another, *more = recognition.alternatives
    message = (
        f"The teacher's tensors fit networks that compute different things. {recognition.architecture} is"
        f" assumed. If another one was trained, name it, as in teacher.architecture: {another}"
    )
    if more:
        message += f" (or {', '.join(more)})"
    return [WarningEvent(code="architecture_assumed", message=message)]


def enumeration(names: Sequence[str]) -> str:
    """Join the first names of a stranger, quoted as plain ASCII."""
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _place(keys: tuple[str, ...]) -> str:
    return f"at {subscripts(keys)[:_MOST_PLACE_CHARS]}" if keys else "at the top"
