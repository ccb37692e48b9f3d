"""Recognises the network of a state dict by the names and shapes of its tensors.

The names select a few candidates: our own families directly, those of libraries through the index of
fingerprints. Each candidate is built without numbers for the client's classes, channels and image size, and
its shapes are compared. If several fit and compute different things (a state dict says nothing about paddings
or activations), `choice` takes the plain one or leaves the choice to the client.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nayer_core.contract import catalog
from nayer_core.contract.errors import SpecError
from nayer_core.networks import fingerprints, misfit, registry, wide_resnet
from nayer_core.networks.choice import merge_equal, plainest
from nayer_core.networks.client_file import ClientFile
from nayer_core.networks.difference import Setting, compare
from nayer_core.networks.misfit import Attempt
from nayer_core.networks.registry import InputSize, Shapes

# Patterns that turn the names of other well-known implementations into ours.
_OTHER_NAMES: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")),  # ResNet-18, 34 and 50 for CIFAR
    ((r"\.convShortcut\.", ".shortcut."),),  # wide ResNet
    ((r"^fc\.", "linear."),),  # ResNet-20 to 110
    ((r"^(AuxLogits|aux1|aux2)\..*", ""),),  # heads that only training uses
    ((r"(\.denselayer\d+)\.(norm|conv)\.([12])\.", r"\1.\2\3."),),  # torchvision's DenseNets before 2019
)


_BARE_FILE = ClientFile()


@dataclass(frozen=True)
class Recognition:
    """The network a state dict belongs to.

    Attributes:
        architecture: its name for `registry.build`.
        renamed: name in the state dict -> name in the network.
        candidates: every known network with these names and shapes, `architecture` first.
        alternatives: candidates that compute something else; empty if there is no doubt.
    """

    architecture: str
    renamed: Mapping[str, str]
    candidates: tuple[str, ...]
    alternatives: tuple[str, ...] = ()


def recognise(
    shapes: Shapes,
    *,
    num_classes: int,
    input_size: InputSize,
    architecture: str = "auto",
    file: ClientFile = _BARE_FILE,
) -> Recognition:
    """Find the network that `shapes` belongs to.

    Args:
        shapes: name -> shape of a state dict's tensors, wrappers and prefixes removed.
        num_classes: number of the client's labels, and of the network's outputs.
        input_size: (channels, height, width) the client gave.
        architecture: the name the client gave, or `auto`.
        file: where the tensors are in the client's file, for hints that change it.

    Raises:
        TeacherError: `class_count_mismatch`, `architecture_mismatch` (a named one does not fit),
            `architecture_ambiguous` or `architecture_unrecognised`.
        SpecError: `unknown_architecture`, or `input_size_unsupported` by the only candidates.
    """
    setting = Setting(num_classes, input_size)
    if architecture != "auto":
        return _fit_named(shapes, setting, architecture, file)
    matches, misfits, refused = _try_candidates(shapes, setting)
    if matches:
        return _choose(matches, setting)
    if refused and not misfits:
        raise refused[0]
    raise misfit.setting_error(misfits, setting, file) or misfit.unrecognised_error(shapes, setting, file)


def _fit_named(shapes: Shapes, setting: Setting, architecture: str, file: ClientFile) -> Recognition:
    expected = registry.state_shapes(
        architecture, num_classes=setting.num_classes, input_size=setting.input_size
    )
    attempts: list[Attempt] = []
    for renamed, candidate_shapes in _under_other_names(shapes):
        difference = compare(architecture, candidate_shapes, expected)
        if not difference:
            return Recognition(architecture, renamed, (architecture,))
        attempts.append(Attempt(difference, candidate_shapes, renamed))
    closest = min(attempts, key=lambda attempt: len(attempt.difference))
    matches, misfits, _ = _try_candidates(shapes, setting)
    if matches:
        fitting = sorted((match.architecture for match in matches), key=_preference)
        raise misfit.wrong_name_error(len(shapes), closest.difference, fitting)
    raise (
        misfit.setting_error([closest, *misfits], setting, file)
        or misfit.mismatch_error(shapes, closest.difference, setting, file)
    )


def _try_candidates(
    shapes: Shapes, setting: Setting
) -> tuple[list[Recognition], list[Attempt], list[SpecError]]:
    """Compare all candidates; return those that fit, those with the same names, and errors of size."""
    matches: list[Recognition] = []
    misfits: list[Attempt] = []
    refused: list[SpecError] = []
    for renamed, candidate_shapes in _under_other_names(shapes):
        for name in _candidates(candidate_shapes):
            try:
                expected = registry.state_shapes(
                    name, num_classes=setting.num_classes, input_size=setting.input_size
                )
            except SpecError as error:
                refused.append(error)
                continue
            difference = compare(name, candidate_shapes, expected)
            if difference.only_shapes:
                misfits.append(Attempt(difference, candidate_shapes, renamed))
            elif not difference:
                matches.append(Recognition(name, renamed, (name,)))
        if matches:
            break
    return matches, sorted(misfits, key=lambda attempt: len(attempt.difference)), refused


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
    for name in (*catalog.OWN_ARCHITECTURES, *wide_resnet.names_from(shapes)):
        if fingerprints.names_digest(_own_names(name)) == digest:
            yield name
    yield from fingerprints.load_index().by_names.get(digest, ())


def _own_names(name: str) -> Shapes:
    return registry.state_shapes(name, num_classes=10, input_size=(3, 32, 32))


def _choose(matches: list[Recognition], setting: Setting) -> Recognition:
    """Take the only match, the preferred one of equal matches, or the plain one with its alternatives."""
    names = sorted((match.architecture for match in matches), key=_preference)
    classes = merge_equal(names, setting.input_size)
    if not classes:
        raise misfit.image_size_error(names, setting.input_size)
    plain = plainest(classes, setting.input_size)
    if plain is None:
        raise misfit.ambiguity_error(classes)
    others = [name for members in classes if members is not plain for name in members]
    return Recognition(plain[0], matches[0].renamed, (*plain, *others), tuple(others))


def _preference(name: str) -> tuple[int, int, str]:
    """Our own before torchvision's before timm's, then the shortest name."""
    rank = {"torchvision": 1, "timm": 2}.get(name.partition("/")[0], 0)
    return rank, len(name), name
