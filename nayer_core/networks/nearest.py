"""The known network that is most like a state dict, and a change of names that makes it fit."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from nayer_core.contract import catalog
from nayer_core.contract.errors import SpecError
from nayer_core.networks import fingerprints, registry, wide_resnet
from nayer_core.networks.difference import Difference, Setting, compare, count
from nayer_core.networks.fitting import Rename, View, find_rename, views
from nayer_core.networks.registry import Shapes

_LEAST_SHARE = 0.5  # of the tensors; a network that fits fewer is not worth naming
_NEAREST_BUILT = 4  # library networks that are built for each prefix
_MOST_ROOTS_LEFT_OUT = 2
_MOST_ROOTS = 40
_HEAD_ROOTS = ("fc", "classifier", "head", "linear")


@dataclass(frozen=True)
class Likeness:
    """The known network that the tensors are most like.

    Attributes:
        difference: from that network, after removal of the best prefix.
        view: the tensors under that prefix.
        rename: makes the tensors fit; None if no change of names does.
    """

    difference: Difference
    view: View
    rename: Rename | None


def find_nearest(
    shapes: Shapes,
    setting: Setting,
    architecture: str | None = None,
    *,
    spare: Collection[str] = (),
    prefer_averaged: bool = True,
) -> Likeness | None:
    """Find the known network that at least half of the tensors fit, by name and shape.

    Args:
        shapes: name -> shape of the state dict.
        setting: what the client gave.
        architecture: the only network to look at; None looks at all.
        spare: names of tensors that are no weights.
        prefer_averaged: whether averages of weights come before the weights.
    """
    nearest: Likeness | None = None
    for view in views(shapes, prefer_averaged=prefer_averaged):
        for name in [architecture] if architecture else _relatives(view.inside):
            likeness = _likeness(shapes, view, name, setting, spare)
            if likeness is not None and (nearest is None or _rank(likeness) > _rank(nearest)):
                nearest = likeness
    return nearest


def _likeness(
    shapes: Shapes, view: View, name: str, setting: Setting, spare: Collection[str]
) -> Likeness | None:
    try:
        expected = registry.state_shapes(name, num_classes=setting.num_classes, input_size=setting.input_size)
    except SpecError:
        return None
    difference = compare(name, view.inside, expected)
    if difference.fitting < _LEAST_SHARE * count(expected):
        return None
    rename = find_rename(view, difference, expected, setting, spare)
    needed = [it for it in shapes if it not in spare and not _is_scalar(shapes[it])]
    if rename is None and difference.fitting < _LEAST_SHARE * count(needed):
        return None
    whole = replace(difference, unexpected=(*difference.unexpected, *view.outside))
    return Likeness(whole, view, rename)


def _rank(likeness: Likeness) -> tuple[bool, int, int]:
    return likeness.rename is not None, likeness.difference.fitting, -len(likeness.difference)


def _is_scalar(shape: tuple[int, ...]) -> bool:
    return all(side == 1 for side in shape)


def _first_word(name: str) -> str:
    return name.partition(".")[0]


def _relatives(shapes: Shapes) -> Iterator[str]:
    """Yield our own networks, and those of the libraries with nearly the same outermost modules."""
    yield from catalog.OWN_ARCHITECTURES
    yield from wide_resnet.names_from(shapes)
    by_roots = fingerprints.load_index().by_roots
    # Profilers leave scalars behind in every module; a BatchNorm has one, its counter of batches.
    names = [name for name, shape in shapes.items() if not _is_scalar(shape)]
    tensors = len(names) + sum(name.endswith("running_var") for name in names)
    relatives = {
        relative for roots in _roots(names) for relative in by_roots.get(fingerprints.roots_digest(roots), ())
    }
    closest = sorted(
        relatives, key=lambda it: (abs(it[0] - tensors), it[1].startswith("timm/"), len(it[1]), it[1])
    )
    yield from (name for _, name in closest[:_NEAREST_BUILT])


def _roots(names: Iterable[str]) -> Iterator[set[str]]:
    """Yield the outermost modules, all or without up to two of them, each with and without a head."""
    modules = set(map(_first_word, names))
    if len(modules) > _MOST_ROOTS:
        return
    for count_out in range(_MOST_ROOTS_LEFT_OUT + 1):
        for foreign in itertools.combinations(sorted(modules), count_out):
            own = modules.difference(foreign)
            yield own
            yield from (own | {head} for head in _HEAD_ROOTS if head not in own)
