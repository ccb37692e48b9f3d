"""An untrusted teacher file -> the network it belongs to, with its weights, and what was made of the file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.contract.events import WarningEvent
from nayer_core.contract.spec import TeacherWeights
from nayer_core.networks.recognition import Recognition, recognise
from nayer_core.networks.registry import InputSize, Shapes, build
from nayer_core.networks.weights import canonical, load_weights, remove_prefix, shapes_of, wrapper_prefix
from nayer_core.uploads import conversion
from nayer_core.uploads.refusals import printable, refuse
from nayer_core.uploads.teacher_file import TeacherFile

_MAX_WRAPPER_CHARS = 100
_MOST_NAMED = 5


@dataclass(frozen=True)
class Teacher:
    """A teacher that was read and recognised.

    Args:
        network: with its weights, in eval mode.
        recognition: which network it is.
        file: what was in the file, without the tensors.
        prefix: removed from every name; "" if there was none.
    """

    network: nn.Module
    recognition: Recognition
    file: TeacherFile
    prefix: str

    @property
    def wrapped_in(self) -> str | None:
        """The keys in plain ASCII, e.g. `state_dict` or `net.model`; None where there are none."""
        return _shown(self.file.choice.weights.keys)

    def warnings(self) -> list[WarningEvent]:
        """Return what the client should know of how the file was read."""
        return [*_left_out(self.file), *assumption(self.recognition)]


def read_teacher(
    path: Path,
    architecture: str,
    *,
    num_classes: int,
    input_size: InputSize,
    scratch: Path,
    weights: TeacherWeights = "auto",
) -> Teacher:
    """Read an untrusted teacher and build the network it belongs to.

    Args:
        path: the upload.
        architecture: its name, or `auto`.
        num_classes: how many labels there are.
        input_size: (channels, height, width).
        scratch: folder for a temporary file of the teacher's size.
        weights: which set is wanted, where the file has trained and averaged weights.

    Raises:
        TeacherError: the file or its content cannot be used.
        SpecError: no network has that name or takes images of that size.
    """
    converted = scratch / ".teacher.part"
    try:
        file = conversion.convert_teacher(path, converted, weights)
    finally:
        converted.unlink(missing_ok=True)
    prefix = wrapper_prefix(_shapes(file))
    recognition = _recognise(file, prefix, architecture, num_classes=num_classes, input_size=input_size)
    network = build(recognition.architecture, num_classes=num_classes, input_size=input_size)
    state = remove_prefix(file.tensors, prefix)
    load_weights(network, canonical(state, recognition.renamed, network), recognition.architecture)
    _check_variances(network)
    return Teacher(network.eval(), recognition, file.without_tensors(), prefix)


def _recognise(
    file: TeacherFile, prefix: str, architecture: str, *, num_classes: int, input_size: InputSize
) -> Recognition:
    """Find the network. A tensor that was not read is an error only if the network needs it."""
    try:
        recognition = recognise(
            remove_prefix(_shapes(file), prefix),
            num_classes=num_classes,
            input_size=input_size,
            architecture=architecture,
            file=replace(file.source, prefix=prefix),
        )
    except TeacherError:
        for odd in file.odd.values():
            if odd.shape is None:  # its name and shape might be those that are missing
                raise odd.error from None
        raise
    for name, odd in file.odd.items():
        if name.removeprefix(prefix) in recognition.renamed:
            raise odd.error
    return recognition


def _shapes(file: TeacherFile) -> Shapes:
    odd = {name: it.shape for name, it in file.odd.items() if it.shape is not None}
    return {**shapes_of(file.tensors), **odd}


def _left_out(file: TeacherFile) -> list[WarningEvent]:
    warnings = []
    if file.objects:
        message = (
            f"The teacher file also holds objects of {_enumeration(file.objects)}. They were not read:"
            " no code of the file is run, and only its tensors are used."
        )
        warnings.append(WarningEvent(code="objects_left_out", message=message))
    return warnings


def _enumeration(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _shown(keys: tuple[str, ...]) -> str | None:
    return ascii(".".join(keys)[:_MAX_WRAPPER_CHARS])[1:-1] or None


def assumption(recognition: Recognition) -> list[WarningEvent]:
    """Return a warning if the tensors fit other networks too, with the way to name one of these."""
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


def _check_variances(network: nn.Module) -> None:
    """Refuse a BatchNorm with variance + eps <= 0; training leaves some variances slightly below zero."""
    for name, layer in network.named_modules():
        if not isinstance(layer, _BatchNorm) or layer.running_var is None:
            continue
        lowest = float(layer.running_var.min())
        if lowest + layer.eps <= 0:
            raise refuse(
                ErrorCode.NON_FINITE_WEIGHTS,
                f"{name}.running_var holds the negative variance {lowest:g}; with eps, {layer.eps:g}, it has"
                " no root.",
                "Upload a checkpoint whose BatchNorm statistics are sound.",
            )
