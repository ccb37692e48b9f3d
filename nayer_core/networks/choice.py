"""Chooses a network if the tensors of a state dict fit several.

1. Networks that compute the same count as one: those that are equal in the index, and those that give the
   same logits at the client's image size from the same random weights.
2. Of networks that compute different things the plain one is assumed: the names of the others add a word to
   its name (`resnet18` and `resnetblur18`, `efficientnet_b0` and `tf_efficientnet_b0`). Of a network in
   several versions for image sizes, the version for the nearest size is assumed. A warning reports the
   assumption and how to name another network.
3. If the names show no plain network, the client must choose.
"""

import re
from collections.abc import Sequence

from nayer_core.networks import fingerprints, registry
from nayer_core.networks.registry import InputSize

_MADE_FOR = re.compile(r"_(\d{3})$")  # the image size at the end of a name of timm
_ADDED = re.compile(r"[a-z_]+")


def merge_equal(names: Sequence[str], input_size: InputSize) -> list[list[str]]:
    """Group networks with the same tensors by what they compute at `input_size`.

    Args:
        names: most preferred first.
        input_size: (channels, height, width) in pixels.

    Returns:
        The groups, each in the order of `names`. If there are several, networks that cannot take images of
        this size are left out; the list is empty if none can.
    """
    classes = _known_equal(names)
    if len(classes) == 1:
        return classes
    equal: list[list[str]] = []
    for members in _known_equal([name for name in names if registry.takes(name, input_size)]):
        for others in equal:
            if _answer_alike(others[0], members[0], input_size):
                others += members
                break
        else:
            equal.append(members)
    return [sorted(members, key=names.index) for members in equal]


def _known_equal(names: Sequence[str]) -> list[list[str]]:
    index = fingerprints.load_index()
    classes: list[list[str]] = []
    for name in names:
        same = index.equal.get(name, frozenset())
        match = next((members for members in classes if members[0] in same), None)
        if match is None:
            classes.append([name])
        else:
            match.append(name)
    return classes


def plainest(classes: Sequence[Sequence[str]], input_size: InputSize) -> Sequence[str] | None:
    """Find the group of the plain network, of which all others are variants; None if names show none.

    Args:
        classes: groups of networks that compute the same.
        input_size: (channels, height, width) in pixels.
    """
    # The one made for the nearest image size, where several classes have the same plain name.
    for members in sorted(classes, key=lambda members: _distance(members, input_size)):
        others = [other for other in classes if other is not members]
        if all(_is_plainer(members, other) for other in others):
            return members
    return None


def _answer_alike(first: str, second: str, input_size: InputSize) -> bool:
    """Try whether both give the same logits at this size.

    A plain network and its variant are not tried: if they were equal, the index would say so, and a variant
    made to compute something else does so at every size.
    """
    stems = _stem(first), _stem(second)
    if stems[0] != stems[1] and (_is_variant(*stems) or _is_variant(*reversed(stems))):
        return False
    networks = fingerprints.load_index().networks
    if any(networks.get(name, 0) > fingerprints.LARGEST_COMPARED for name in (first, second)):
        return False
    return fingerprints.compute_the_same(first, second, input_size, odd_side=None)


def _distance(members: Sequence[str], input_size: InputSize) -> int:
    """Smallest difference in pixels between the images and those that a member was made for."""
    sizes = (_MADE_FOR.search(name) for name in members)
    return min((abs(int(size[1]) - input_size[1]) for size in sizes if size), default=0)


def _is_plainer(members: Sequence[str], others: Sequence[str]) -> bool:
    return any(_is_variant(_stem(other), _stem(name)) for name in members for other in others)


def _stem(name: str) -> str:
    """`name` without its library and the image size it was made for."""
    return _MADE_FOR.sub("", name.partition("/")[2] or name)


def _is_variant(name: str, plain: str) -> bool:
    """Whether `name` is `plain`, or `plain` with letters added in one place."""
    extra = len(name) - len(plain)
    if extra <= 0:
        return name == plain
    return any(
        name[:place] == plain[:place]
        and name[place + extra :] == plain[place:]
        and _ADDED.fullmatch(name, place, place + extra)
        for place in range(len(plain) + 1)
    )
