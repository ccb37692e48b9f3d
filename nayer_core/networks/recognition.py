"""Which network a state dict belongs to, told from the names and shapes of its tensors alone.

Names lead to a few candidates: our own families by their names, the libraries' through the index
of fingerprints. Each candidate is built without numbers for the classes, channels and image size
at hand, and shapes decide. Where several fit and are not known to compute the same (a state dict
says nothing about paddings or activations), the client must name one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nayer_core.contract import catalog
from nayer_core.contract.errors import ErrorCode, SpecError, TeacherError
from nayer_core.networks import fingerprints, registry
from nayer_core.networks.difference import Difference, causes, classes_found, compare
from nayer_core.networks.registry import InputSize, Shapes

_HEAD_NAMES = re.compile(r"(^|\.)(fc\d*|linear|head|classifier|last_linear|logits|output)(\.|$)")
_MOST_NAMED = 5  # candidates that a message lists
_NEAREST_BUILT = 4  # library networks that are built to find the nearest one

# The same network under the names of other well-known implementations.
_OTHER_NAMES: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")),  # ResNet-18, 34 and 50 for CIFAR
    ((r"\.convShortcut\.", ".shortcut."),),  # wide ResNet
    ((r"^fc\.", "linear."),),  # ResNet-20 to 110
    ((r"^(AuxLogits|aux1|aux2)\..*", ""),),  # heads that only training uses
)


@dataclass(frozen=True)
class Recognition:
    """The network a state dict belongs to.

    Attributes:
        architecture: its name for `registry.build`.
        renamed: name in the state dict -> name that the network gives the tensor.
        candidates: every known network with these names and shapes, `architecture` first.
    """

    architecture: str
    renamed: Mapping[str, str]
    candidates: tuple[str, ...]


def recognise(
    shapes: Shapes, *, num_classes: int, input_size: InputSize, architecture: str = "auto"
) -> Recognition:
    """Find the network that `shapes` belongs to.

    Args:
        shapes: name -> shape of a state dict's tensors, wrappers and prefixes removed.
        num_classes: labels the client gave; the network must have as many outputs.
        input_size: (channels, height, width) the client gave.
        architecture: the name the client gave, or `auto`.

    Raises:
        TeacherError: `class_count_mismatch`, `architecture_mismatch` (a named one does not fit),
            `architecture_ambiguous` or `architecture_unrecognised`.
        SpecError: `unknown_architecture`, or `input_size_unsupported` by the only candidates.
    """
    if architecture != "auto":
        return _fit_named(shapes, num_classes, input_size, architecture)
    matches, misfits, refused = _try_candidates(shapes, num_classes, input_size)
    if matches:
        return _choose(matches, len(shapes))
    for misfit in misfits:
        _explain(misfit, num_classes, input_size)
    if refused and not misfits:
        raise refused[0]
    raise _unrecognised(shapes, misfits[0] if misfits else _nearest(shapes, num_classes, input_size))


def head_classes(shapes: Shapes) -> int | None:
    """Guess how many classes a state dict tells apart: rows of its last linear layer.

    The layer is the last one with a usual name (fc, linear, head, classifier, ...), else the last
    matrix of all. None where there is no matrix.
    """
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2 and name.endswith("weight")}
    named = [name for name in matrices if _HEAD_NAMES.search(name)]
    candidates = named or list(matrices)
    return matrices[candidates[-1]][0] if candidates else None


def _fit_named(shapes: Shapes, num_classes: int, input_size: InputSize, architecture: str) -> Recognition:
    expected = registry.state_shapes(architecture, num_classes=num_classes, input_size=input_size)
    misfits = []
    for renamed, found in _under_other_names(shapes):
        difference = compare(architecture, found, expected)
        if not difference:
            return Recognition(architecture, renamed, (architecture,))
        misfits.append(difference)
    nearest = min(misfits, key=len)
    _explain(nearest, num_classes, input_size)
    fitting = [match.architecture for match in _try_candidates(shapes, num_classes, input_size)[0]]
    raise TeacherError(
        ErrorCode.ARCHITECTURE_MISMATCH,
        f"The teacher's {len(shapes)} tensors are not those of {architecture}: {nearest}.",
        f"They fit {_listed(fitting)}: name that, or leave teacher.architecture 'auto'."
        if fitting
        else "Name the architecture that was trained, or leave teacher.architecture 'auto'.",
    )


def _try_candidates(
    shapes: Shapes, num_classes: int, input_size: InputSize
) -> tuple[list[Recognition], list[Difference], list[SpecError]]:
    """Compare every candidate: those that fit, those of the same names, those without this size."""
    matches: list[Recognition] = []
    misfits: list[Difference] = []
    refused: list[SpecError] = []
    for renamed, found in _under_other_names(shapes):
        for name in _candidates(found):
            try:
                expected = registry.state_shapes(name, num_classes=num_classes, input_size=input_size)
            except SpecError as error:
                refused.append(error)
                continue
            difference = compare(name, found, expected)
            if difference.only_shapes:
                misfits.append(difference)
            elif not difference:
                matches.append(Recognition(name, renamed, (name,)))
        if matches:
            break
    return matches, sorted(misfits, key=len), refused


def _under_other_names(shapes: Shapes) -> Iterator[tuple[dict[str, str], Shapes]]:
    """Yield `shapes` as they are, then under the names of other implementations."""
    for index, substitutions in enumerate(_OTHER_NAMES):
        renamed: dict[str, str] = {}
        for name in shapes:
            new_name = name
            for pattern, replacement in substitutions:
                new_name = re.sub(pattern, replacement, new_name)
            if new_name:
                renamed[name] = new_name
        changed = len(renamed) < len(shapes) or any(old != new for old, new in renamed.items())
        distinct = len(set(renamed.values())) == len(renamed)
        if index == 0 or (changed and distinct):
            yield renamed, {new: shapes[old] for old, new in renamed.items()}


def _candidates(shapes: Shapes) -> Iterator[str]:
    digest = fingerprints.names_digest(shapes)
    for name in (*catalog.OWN_ARCHITECTURES, *_wide_resnet(shapes)):
        if fingerprints.names_digest(_own_names(name)) == digest:
            yield name
    yield from fingerprints.load_index().by_names.get(digest, ())


def _own_names(name: str) -> Shapes:
    return registry.state_shapes(name, num_classes=10, input_size=(3, 32, 32))


def _wide_resnet(shapes: Shapes) -> tuple[str, ...]:
    """Read depth and width of a wide ResNet from its blocks and their channels."""
    blocks = [name for name in shapes if re.fullmatch(r"block1\.layer\.\d+\.conv1\.weight", name)]
    last = shapes.get("bn1.weight", ())
    if not blocks or len(last) != 1 or last[0] % 64 != 0:
        return ()
    name = f"wrn_{6 * len(blocks) + 4}_{last[0] // 64}"
    return (name,) if catalog.is_wide_resnet(name) else ()


def _choose(matches: list[Recognition], tensors: int) -> Recognition:
    """Take the only match, or any of several that compute the same."""
    names = sorted((match.architecture for match in matches), key=_preference)
    classes: list[list[str]] = []
    for name in names:
        same = fingerprints.load_index().equal.get(name, frozenset())
        known = next((members for members in classes if members[0] in same), None)
        if known is None:
            classes.append([name])
        else:
            known.append(name)
    if len(classes) > 1:
        listed = ", ".join(" = ".join(members) for members in classes)
        raise TeacherError(
            ErrorCode.ARCHITECTURE_AMBIGUOUS,
            f"The teacher's {tensors} tensors fit {len(names)} networks that are not known to compute the"
            f" same: {listed}.",
            "Name the one that was trained in teacher.architecture.",
        )
    return Recognition(names[0], matches[0].renamed, tuple(names))


def _preference(name: str) -> tuple[int, int, str]:
    """Our own before torchvision's before timm's, then the shortest name."""
    rank = {"torchvision": 1, "timm": 2}.get(name.partition("/")[0], 0)
    return rank, len(name), name


def _explain(misfit: Difference, num_classes: int, input_size: InputSize) -> None:
    """Raise what the client must change where the network is right and the spec is not."""
    found = causes(misfit, num_classes, input_size)
    if "classes" in found:
        classes = classes_found(misfit, num_classes, input_size)
        raise TeacherError(
            ErrorCode.CLASS_COUNT_MISMATCH,
            f"The teacher ({misfit.architecture}) tells {classes} classes apart, and there are"
            f" {num_classes} labels.",
            f"Give {classes} labels, in the order of the teacher's outputs.",
        )
    if found:
        size = " x ".join(map(str, input_size))
        raise TeacherError(
            ErrorCode.ARCHITECTURE_MISMATCH,
            f"The teacher is {misfit.architecture} for other images than {size}: {misfit}.",
            "Give the channels, height and width it was trained with in teacher.input_size.",
        )


def _unrecognised(shapes: Shapes, nearest: Difference | None) -> TeacherError:
    first = ", ".join(f"{name[:80]} {list(shape)}" for name, shape in list(shapes.items())[:3])
    classes = head_classes(shapes)
    head = "no linear layer" if classes is None else f"{classes} rows in the last linear layer"
    likeness = f" The nearest known network is {nearest.architecture}: {nearest}." if nearest else ""
    return TeacherError(
        ErrorCode.ARCHITECTURE_UNRECOGNISED,
        f"No known network has these {len(shapes)} tensors ({first}, ...; {head}).{likeness}",
        "Train one of GET /architectures, or give its tensors the names that its implementation has.",
    )


def _nearest(shapes: Shapes, num_classes: int, input_size: InputSize) -> Difference | None:
    """Find the known network with the fewest tensors that differ; None if nothing is alike."""
    relatives = fingerprints.load_index().by_roots.get(fingerprints.roots_digest(shapes), ())
    closest = sorted(relatives, key=lambda relative: (abs(relative[0] - len(shapes)), relative[1]))
    names = [name for _, name in closest[:_NEAREST_BUILT]]
    names += [*catalog.OWN_ARCHITECTURES, *_wide_resnet(shapes)]
    differences = []
    for name in names:
        try:
            expected = registry.state_shapes(name, num_classes=num_classes, input_size=input_size)
        except SpecError:
            continue
        if not shapes.keys().isdisjoint(expected):
            differences.append(compare(name, shapes, expected))
    return min(differences, key=len, default=None)


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return " or ".join(names[:_MOST_NAMED]) + (f" or {more} more" if more > 0 else "")
