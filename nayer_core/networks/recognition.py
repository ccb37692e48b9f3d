"""Recognises the network of a state dict by the names and shapes of its tensors.

The names select a few candidates: our own families directly, those of libraries through the index of
fingerprints. Each candidate is built without numbers for the client's classes, channels and image size, and
its shapes are compared. If several fit and compute different things (a state dict says nothing about paddings
or activations), `choice` takes the plain one or leaves the choice to the client.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from nayer_core.contract import catalog
from nayer_core.contract.errors import SpecError, TeacherError
from nayer_core.networks import fingerprints, misfit, registry, wide_resnet
from nayer_core.networks.choice import merge_equal, plainest
from nayer_core.networks.difference import MOST_CLASSES, Setting, compare
from nayer_core.networks.fitting import View, is_averaged_prefix, views
from nayer_core.networks.misfit import Attempt
from nayer_core.networks.nearest import Likeness, find_nearest
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


@dataclass(frozen=True)
class Recognition:
    """The network a state dict belongs to.

    Attributes:
        architecture: its name for `registry.build`.
        renamed: name in the state dict -> name in the network.
        candidates: every known network with these names and shapes, `architecture` first.
        alternatives: candidates that compute something else; empty if there is no doubt.
        prefix: of the names in the state dict, "" or words with a dot behind each.
        left_out: names in the state dict of tensors that the network does not need.
        moved: names in the state dict of a head that has another name in the network.
        zeros: biases of the network that the state dict has not.
        is_averaged: whether the prefix names averages over the training.
        is_binary: whether the state dict has one output, z; the network's two are [0, z].
    """

    architecture: str
    renamed: Mapping[str, str]
    candidates: tuple[str, ...]
    alternatives: tuple[str, ...] = ()
    prefix: str = ""
    left_out: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    is_averaged: bool = False
    is_binary: bool = False


@dataclass(frozen=True)
class _Query:
    """What is looked for; the names are those of `recognise`."""

    shapes: Shapes
    setting: Setting
    architecture: str | None
    spare: Collection[str]
    prefer_averaged: bool

    def views(self) -> Iterator[View]:
        return views(self.shapes, prefer_averaged=self.prefer_averaged)

    def nearest(self) -> Likeness | None:
        return find_nearest(
            self.shapes,
            self.setting,
            self.architecture,
            spare=self.spare,
            prefer_averaged=self.prefer_averaged,
        )


def recognise(
    shapes: Shapes,
    *,
    num_classes: int,
    input_size: InputSize,
    architecture: str = "auto",
    spare: Collection[str] = (),
    prefer_averaged: bool = True,
) -> Recognition:
    """Find the network that `shapes` belongs to.

    Args:
        shapes: name -> shape of a state dict's tensors, wrappers removed.
        num_classes: number of the client's labels, and of the network's outputs. A state dict with one output
            fits two labels.
        input_size: (channels, height, width) the client gave.
        architecture: the name the client gave, or `auto`.
        spare: names of tensors that are no weights, such as indices, and may be left out anywhere.
        prefer_averaged: whether averages of weights are taken where the state dict has both.

    Raises:
        TeacherError: `class_count_mismatch`, `architecture_mismatch` (a named one does not fit),
            `architecture_ambiguous` or `architecture_unrecognised`.
        SpecError: `unknown_architecture`, or `input_size_unsupported` by the only candidates.
    """
    setting = Setting(num_classes, input_size)
    name = None if architecture == "auto" else architecture
    query = _Query(shapes, setting, name, spare, prefer_averaged)
    recognition = _search(query)
    if recognition is None and num_classes == 2:
        one_output = _search(replace(query, setting=Setting(1, input_size)))
        recognition = one_output and replace(one_output, is_binary=True)
    if recognition is None:
        raise _error(query)
    return recognition


def _search(query: _Query) -> Recognition | None:
    """Look under every prefix, then for changes of names."""
    for view in query.views():
        recognition = _fit(view.inside, query)
        if recognition is not None:
            inside = {view.prefix + name for name in recognition.renamed}
            return replace(
                recognition,
                renamed={view.prefix + old: new for old, new in recognition.renamed.items()},
                prefix=view.prefix,
                is_averaged=is_averaged_prefix(view.prefix, query.shapes),
                left_out=tuple(name for name in query.shapes if name not in inside),
            )
    likeness = query.nearest()
    rename = likeness.rename if likeness else None
    recognition = _fit(rename.shapes, query) if rename else None
    if likeness is None or rename is None or recognition is None:
        return None if query.prefer_averaged else _search(replace(query, prefer_averaged=True))
    return replace(
        recognition,
        renamed={old: recognition.renamed[new] for old, new in rename.renamed.items()},
        prefix=likeness.view.prefix,
        is_averaged=is_averaged_prefix(likeness.view.prefix, query.shapes),
        left_out=rename.left_out,
        moved=rename.moved,
        zeros=tuple(recognition.renamed[name] for name in rename.zeros),
    )


def _fit(shapes: Shapes, query: _Query) -> Recognition | None:
    """Compare names and shapes as they are, or under the names of other implementations."""
    if query.architecture is None:
        matches, _, _ = _try_candidates(shapes, query.setting)
        return _choose(matches, query.setting) if matches else None
    expected = _expected(query.architecture, query.setting)
    for renamed, candidate_shapes in _under_other_names(shapes):
        if not compare(query.architecture, candidate_shapes, expected):
            return Recognition(query.architecture, renamed, (query.architecture,))
    return None


def _expected(architecture: str, setting: Setting) -> Shapes:
    return registry.state_shapes(architecture, num_classes=setting.num_classes, input_size=setting.input_size)


def _error(query: _Query) -> TeacherError | SpecError:
    """Find out why nothing fits."""
    shapes, setting = query.shapes, query.setting
    attempts: list[Attempt] = []
    if query.architecture is not None:
        expected = _expected(query.architecture, setting)
        attempts = [
            Attempt(compare(query.architecture, candidate_shapes, expected), candidate_shapes, renamed)
            for renamed, candidate_shapes in _under_other_names(shapes)
        ]
        attempts = [min(attempts, key=lambda attempt: len(attempt.difference))]
        other = _search(replace(query, architecture=None))
        if other is not None:
            return misfit.wrong_name_error(len(shapes), attempts[0].difference, other.candidates)
    named = attempts[:1]
    for view in query.views():
        _, misfits, refused = _try_candidates(view.inside, setting)
        if refused and not misfits and not named:
            return refused[0]
        attempts += misfits
    problem = misfit.setting_error(attempts, setting) or _class_count_error(query)
    if problem is not None:
        return problem
    if named:
        return misfit.mismatch_error(shapes, named[0].difference, query.nearest(), setting)
    return misfit.unrecognised_error(shapes, query.nearest(), setting)


def _class_count_error(query: _Query) -> TeacherError | None:
    """Try whether the tensors would fit with as many labels as the last layer has rows."""
    classes = misfit.head_classes(query.shapes)
    if classes is None or classes == query.setting.num_classes or not 0 < classes <= MOST_CLASSES:
        return None
    fitting = _search(replace(query, setting=Setting(classes, query.setting.input_size)))
    if fitting is None:
        return None
    return misfit.class_count_error(fitting.architecture, classes, query.setting)


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
