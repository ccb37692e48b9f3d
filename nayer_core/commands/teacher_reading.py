"""An untrusted teacher file -> the network it belongs to, with its weights, and what was made of the file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nayer_core.commands import reading_notes
from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.contract.events import WarningEvent
from nayer_core.contract.spec import TeacherWeights
from nayer_core.networks.parametrizations import resolve_parts
from nayer_core.networks.recognition import Recognition, recognise
from nayer_core.networks.registry import InputSize, build
from nayer_core.networks.weights import canonical, load_weights, shapes_of, without_wrappers
from nayer_core.uploads import conversion
from nayer_core.uploads.refusals import refuse
from nayer_core.uploads.teacher_file import TeacherFile
from nayer_core.uploads.tensor_checks import OddTensor, canonical_numbers

_MAX_WRAPPER_CHARS = 100


@dataclass(frozen=True)
class Teacher:
    """A teacher that was read and recognised.

    Args:
        network: with its weights, in eval mode.
        recognition: which network it is.
        file: what was in the file, without the tensors.
        computed: names of weights that were computed from their parts.
    """

    network: nn.Module
    recognition: Recognition
    file: TeacherFile
    computed: tuple[str, ...] = ()

    @property
    def wrapped_in(self) -> str | None:
        """The keys in plain ASCII, e.g. `state_dict` or `net.model`; None where there are none."""
        return _shown(".".join(self.file.choice.weights.keys))

    @property
    def prefix(self) -> str | None:
        """The prefix that was removed from the names, in plain ASCII; None where there was none."""
        return _shown(self.recognition.prefix)

    @property
    def is_averaged(self) -> bool:
        """Whether the weights are averages over the training."""
        return self.file.choice.averaged or self.recognition.is_averaged

    def warnings(self, labels: Sequence[str] | None = None) -> list[WarningEvent]:
        """Return what the client should know of how the file was read.

        Args:
            labels: the class names, where they are known.
        """
        recognition = self.recognition
        return [
            *reading_notes.objects_note(self.file.objects),
            *reading_notes.weights_note(self.file.choice, recognition),
            *reading_notes.tensors_note(recognition.left_out),
            *reading_notes.computed_note(self.computed),
            *reading_notes.head_note(recognition, labels),
            *reading_notes.assumption_note(recognition),
        ]


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
    tensors, computed = resolve_parts(without_wrappers(file.tensors))
    odd = without_wrappers(file.odd) | _not_finite(tensors, computed)
    known_shapes = {name: it.shape for name, it in odd.items() if it.shape is not None}
    try:
        recognition = recognise(
            {**shapes_of(tensors), **known_shapes},
            num_classes=num_classes,
            input_size=input_size,
            architecture=architecture,
            spare={*odd, *_indices(tensors)},
            prefer_averaged=weights == "auto",
        )
    except TeacherError as error:
        raise _of_unknown_shape(odd) or error from None
    _refuse_needed(odd, recognition)
    network = build(recognition.architecture, num_classes=num_classes, input_size=input_size)
    load_weights(network, canonical(tensors, recognition, network), recognition.architecture)
    _check_variances(network)
    return Teacher(network.eval(), recognition, file.without_tensors(), computed)


def _not_finite(tensors: Mapping[str, Tensor], computed: Iterable[str]) -> dict[str, OddTensor]:
    """Find weights that are not finite although their parts are: a norm of zero divides them."""
    results = {name: canonical_numbers(name, tensors[name]) for name in computed}
    return {
        name: OddTensor(result, tuple(tensors[name].shape))
        for name, result in results.items()
        if isinstance(result, TeacherError)
    }


def _indices(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not tensor.is_floating_point()]


def _shown(text: str) -> str | None:
    return ascii(text[:_MAX_WRAPPER_CHARS])[1:-1] or None


def _refuse_needed(odd: dict[str, OddTensor], recognition: Recognition) -> None:
    needed = next((odd[name].error for name in recognition.renamed if name in odd), None)
    if recognition.zeros:  # a bias that was not read is not one of zeros
        needed = needed or _of_unknown_shape(odd)
    if needed is not None:
        raise needed


def _of_unknown_shape(odd: dict[str, OddTensor]) -> TeacherError | None:
    """The error of a tensor that might be one the network needs: its shape is not known."""
    return next((it.error for it in odd.values() if it.shape is None), None)


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
