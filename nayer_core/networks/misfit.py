"""Errors for tensors that fit no network, another than the named one, or several.

Each change that a hint asks for was tried: with it, the tensors fit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nayer_core.contract.errors import ErrorCode, SpecError, TeacherError
from nayer_core.networks.difference import (
    Difference,
    Setting,
    depends_on_image_size,
    find_setting,
    first,
    head_with_other_inputs,
)
from nayer_core.networks.nearest import Likeness, find_nearest
from nayer_core.networks.registry import InputSize, Shapes

_HEAD_NAMES = re.compile(r"(^|\.)(fc\d*|linear|head|classifier|last_linear|logits|output)(\.|$)")
_MOST_LISTED = 5  # networks that a message lists
_DEPTHS = (1, 3)  # channels of images that are taken
_NO_SUCH_NETWORK = "Train one of the networks of GET /architectures, and upload its state dict as it is."

_FOREIGN_NAMES = (
    "Only the names that torchvision and timm give are known. Rename the tensors to those of the same network"
    " in timm, or train timm's, and upload its state dict."
)

# Names that only one library uses, if its tensors cannot be renamed one by one.
_LIBRARIES = (
    (
        re.compile(
            r"(^|\.)(embeddings\.(patch_embeddings|cls_token)|attention\.attention\.(query|key|value)\.)"
            r"|\.convolution\.weight$"
        ),
        "Hugging Face transformers",
    ),
    (re.compile(r"(^|\.)(_conv_stem\.weight$|_blocks\.\d+\._\w+)"), "the package efficientnet_pytorch"),
)


@dataclass(frozen=True)
class Attempt:
    """A network that a state dict was compared with and does not fit.

    Attributes:
        difference: why it does not fit.
        shapes: name -> shape, under the network's names.
        renamed: name in the state dict -> name in `shapes`.
    """

    difference: Difference
    shapes: Shapes
    renamed: Mapping[str, str]


def setting_error(attempts: Iterable[Attempt], setting: Setting) -> TeacherError | None:
    """Describe what the client must change if the network is right and the spec is wrong; else None.

    Args:
        attempts: networks compared with, those with the fewest differences first.
        setting: what the client gave.
    """
    attempts = list(attempts)
    for attempt in attempts:
        fitting = find_setting(attempt.shapes, attempt.difference, setting)
        if fitting is None:
            continue
        if fitting.input_size != setting.input_size:
            return _other_images(attempt.difference, setting, fitting)
        return class_count_error(attempt.difference.architecture, fitting.num_classes, setting)
    for attempt in attempts:
        if depends_on_image_size(attempt.difference, setting):
            return TeacherError(
                ErrorCode.ARCHITECTURE_MISMATCH,
                f"The teacher is {attempt.difference.architecture} for other images than"
                f" {_size(setting.input_size)}: {attempt.difference}.",
                "Give the height and width it was trained with in teacher.input_size; the usual square sizes"
                " do not fit.",
            )
    return None


def wrong_name_error(tensors: int, difference: Difference, fitting: Sequence[str]) -> TeacherError:
    """Say that the tensors are those of networks other than the named one."""
    return TeacherError(
        ErrorCode.ARCHITECTURE_MISMATCH,
        f"The teacher's {tensors} tensors are not those of {difference.architecture}, but of"
        f" {_enumeration(fitting)}: {difference}.",
        f"Give teacher.architecture: {fitting[0]}",
    )


def mismatch_error(
    shapes: Shapes, difference: Difference, likeness: Likeness | None, setting: Setting
) -> TeacherError:
    """Say that the tensors are neither those of the named network nor of any other."""
    architecture = difference.architecture
    likeness = likeness or find_nearest(shapes, setting)
    return _unlike(
        ErrorCode.ARCHITECTURE_MISMATCH,
        f"The teacher's {len(shapes)} tensors are not those of {architecture}: {difference}.",
        _likeness(shapes, likeness, setting, architecture),
    )


def unrecognised_error(shapes: Shapes, likeness: Likeness | None, setting: Setting) -> TeacherError:
    """Describe tensors of no known network, with the nearest network or a change of names that helps."""
    examples = first([f"{name} {list(shape)}" for name, shape in shapes.items()])
    classes = head_classes(shapes)
    head = "no linear layer" if classes is None else f"{classes} rows in the last linear layer"
    return _unlike(
        ErrorCode.ARCHITECTURE_UNRECOGNISED,
        f"No known network has these {len(shapes)} tensors ({examples}; {head}).",
        _likeness(shapes, likeness, setting),
    )


def _unlike(code: ErrorCode, message: str, advice: tuple[str, str]) -> TeacherError:
    explanation, hint = advice
    return TeacherError(code, f"{message} {explanation}".strip(), hint)


def ambiguity_error(classes: Sequence[Sequence[str]]) -> TeacherError:
    """Say that several networks fit, none of which is the plain one.

    Args:
        classes: groups of networks that compute the same.
    """
    members_of_all = ", ".join(" = ".join(members) for members in classes)
    options = " or ".join(f"teacher.architecture: {members[0]}" for members in classes[:_MOST_LISTED])
    return TeacherError(
        ErrorCode.ARCHITECTURE_AMBIGUOUS,
        f"The teacher's tensors fit {len(classes)} networks that compute different things: {members_of_all}.",
        f"Name the one that was trained: {options}",
    )


def image_size_error(names: Sequence[str], input_size: InputSize) -> SpecError:
    """Say that the tensors fit, but that none of the networks takes images of this size."""
    return SpecError(
        ErrorCode.INPUT_SIZE_UNSUPPORTED,
        f"{_enumeration(names)} cannot take images of {_size(input_size)}.",
        "Give the height and width that the teacher was trained with in teacher.input_size.",
    )


def head_classes(shapes: Shapes) -> int | None:
    """Guess the number of classes of a state dict: rows of its last linear layer.

    The layer is the last one with a usual name (fc, linear, head, classifier, ...), else the last
    matrix of all. None if there is no matrix.
    """
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2 and name.endswith("weight")}
    heads = [name for name in matrices if _HEAD_NAMES.search(name)]
    candidates = heads or list(matrices)
    return matrices[candidates[-1]][0] if candidates else None


def _other_images(difference: Difference, setting: Setting, fitting: Setting) -> TeacherError:
    size, fits = setting.input_size, fitting.input_size
    message = f"The teacher is {difference.architecture} for images of {_size(fits)}, not {_size(size)}"
    hint = f"Give teacher.input_size: {list(fits)}"
    if fits[0] != size[0]:
        hint += ", and a mean and a std for each channel"
    if fitting.num_classes != setting.num_classes:
        message += f", and has {fitting.num_classes} classes, not {setting.num_classes}"
        hint += f", and {fitting.num_classes} labels"
    if fits[0] not in _DEPTHS:
        hint = "Only teachers for images of 1 channel (gray) or 3 (RGB) are taken."
    return TeacherError(ErrorCode.ARCHITECTURE_MISMATCH, f"{message}: {difference}.", hint)


def class_count_error(architecture: str, classes: int, setting: Setting) -> TeacherError:
    """Say that there must be as many labels as the teacher has outputs; two where it has one."""
    if classes == 1:
        return TeacherError(
            ErrorCode.CLASS_COUNT_MISMATCH,
            f"The teacher ({architecture}) has one output, as after training with a sigmoid; there are"
            f" {setting.num_classes} labels.",
            "Give two labels, that of the negative class first.",
        )
    return TeacherError(
        ErrorCode.CLASS_COUNT_MISMATCH,
        f"The teacher ({architecture}) has {classes} classes, and there are {setting.num_classes} labels.",
        f"Give {classes} labels, in the order of the teacher's outputs.",
    )


def _likeness(
    shapes: Shapes, likeness: Likeness | None, setting: Setting, architecture: str | None = None
) -> tuple[str, str]:
    """Return explanation and hint for tensors that no change of names makes fit."""
    library = next((name for pattern, name in _LIBRARIES if any(map(pattern.search, shapes))), None)
    if library is not None:
        return f"These are the names of {library}.", _FOREIGN_NAMES
    if likeness is None:
        return "", _NO_SUCH_NETWORK
    difference = likeness.difference
    nearest = f"The nearest known network is {difference.architecture}: {difference}."
    if difference.architecture == architecture:  # already in the message
        nearest = ""
    explanation, hint = _reason(shapes, difference, setting)
    return f"{nearest} {explanation}".strip(), hint


def _reason(shapes: Shapes, difference: Difference, setting: Setting) -> tuple[str, str]:
    """Return the known reason why the tensors differ from a network's, if there is one, and the hint."""
    if not difference.unexpected and not difference.misshaped:
        roots = {name.partition(".")[0] for name in shapes}
        if all(name.endswith(("running_mean", "running_var")) for name in difference.missing):
            return (
                "The statistics of its BatchNorm layers are missing.",
                "Upload the whole state dict: parameters alone do not hold the statistics. Networks with"
                " GroupNorm or with BatchNorm without statistics are not taken.",
            )
        if all(name.partition(".")[0] not in roots for name in difference.missing):
            return (
                "The head is missing: a backbone alone has no classes.",
                f"Upload the weights of the whole network, with {first(difference.missing)}.",
            )
    inputs = head_with_other_inputs(difference, setting) if difference.only_shapes else None
    return f"Its head differs: {inputs}." if inputs else "", _NO_SUCH_NETWORK


def _size(input_size: InputSize) -> str:
    return " x ".join(map(str, input_size))


def _enumeration(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LISTED
    return " or ".join(names[:_MOST_LISTED]) + (f" or {more} more" if more > 0 else "")
