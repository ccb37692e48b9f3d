"""The known network that is most like a state dict, and a change of names that makes it fit.

Training code puts a network into a larger module (`backbone.conv1.weight`), gives it another head
(`fc.1.weight`), or saves more beside it (`criterion.weight`). Every change of names is
tried: it is returned only if the tensors are then those of the network.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nayer_core.contract import catalog
from nayer_core.contract.errors import SpecError
from nayer_core.networks import fingerprints, registry, wide_resnet
from nayer_core.networks.client_file import quoted, removed_prefix
from nayer_core.networks.difference import Difference, Setting, compare, count, find_setting
from nayer_core.networks.registry import Shapes

_LEAST_SHARE = 0.5  # of the tensors; a network that fits fewer is not worth naming
_NEAREST_BUILT = 4  # library networks that are built for each prefix
_LEAST_UNDER_PREFIX = 0.3  # share of the tensors
_DEEPEST_PREFIX = 3
_MOST_ROOTS_LEFT_OUT = 2
_MOST_ROOTS = 40
_MOST_LISTED = 4  # tensors that a line of Python names one by one
_HEAD_ROOTS = ("fc", "classifier", "head", "linear")


@dataclass(frozen=True)
class Rename:
    """A change of names after which the tensors fit a network.

    Attributes:
        statements: Python that changes `sd`, a dict of tensors by name.
        surplus: names that the network does not need.
        setting: of the network that then fits.
    """

    statements: tuple[str, ...]
    surplus: tuple[str, ...]
    setting: Setting


@dataclass(frozen=True)
class Likeness:
    """The known network that the tensors are most like.

    Attributes:
        difference: from that network, after removal of the best prefix.
        rename: makes the tensors fit; None if no change of names does.
    """

    difference: Difference
    rename: Rename | None


def find_nearest(shapes: Shapes, setting: Setting, architecture: str | None = None) -> Likeness | None:
    """Find the known network that at least half of the tensors fit, by name and shape.

    Args:
        shapes: name -> shape of the state dict.
        setting: what the client gave.
        architecture: the only network to look at; None looks at all.
    """
    nearest: Likeness | None = None
    for prefix in _prefixes(shapes):
        inside = {
            name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)
        }
        outside = {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}
        for name in [architecture] if architecture else _relatives(inside):
            try:
                expected = registry.state_shapes(
                    name, num_classes=setting.num_classes, input_size=setting.input_size
                )
            except SpecError:
                continue
            difference = compare(name, inside, expected)
            if difference.fitting < _LEAST_SHARE * max(count(inside), count(expected)):
                continue
            rename = _rename(prefix, inside, outside, difference, expected, setting)
            if rename is None and difference.fitting < _LEAST_SHARE * count(shapes):
                continue
            whole = replace(difference, unexpected=(*difference.unexpected, *outside))
            likeness = Likeness(whole, rename)
            if nearest is None or _rank(likeness) > _rank(nearest):
                nearest = likeness
    return nearest


def _rank(likeness: Likeness) -> tuple[bool, int, int]:
    return likeness.rename is not None, likeness.difference.fitting, -len(likeness.difference)


def _prefixes(names: Collection[str]) -> Iterator[str]:
    """Yield "" and each prefix of whole words that many names share, the most frequent first."""
    yield ""
    counts: Counter[str] = Counter()
    for name in names:
        words = name.split(".")
        counts.update(
            ".".join(words[:depth]) + "." for depth in range(1, min(len(words), _DEEPEST_PREFIX + 1))
        )
    yield from (prefix for prefix, count in counts.most_common() if count >= _LEAST_UNDER_PREFIX * len(names))


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


def _rename(
    prefix: str,
    inside: Shapes,
    outside: Shapes,
    difference: Difference,
    expected: Shapes,
    setting: Setting,
) -> Rename | None:
    """Find the prefix to remove and the names to change and leave out; None unless the network then fits."""
    spare = {**outside, **{name: shape for name, shape in inside.items() if name not in expected}}
    sources = _sources(difference.missing, spare, expected)
    zeros = [name for name in difference.missing if name not in sources]
    if not all(_has_no_bias(name, inside, sources) for name in zeros):
        return None
    surplus = [name for name in spare if name not in sources.values()]
    if not _may_be_left_out(surplus, inside, expected, sources.values()):
        return None
    after = {name: shape for name, shape in inside.items() if name not in spare}
    after |= {name: spare[source] for name, source in sources.items()} | {
        name: expected[name] for name in zeros
    }
    remaining = compare(difference.architecture, after, expected)
    fitting = setting if not remaining else find_setting(after, remaining, setting)
    if fitting is None or (fitting != setting and _hold_a_head(surplus, spare, setting)):
        return None
    statements = _selection(prefix, inside, outside, sources.values(), surplus)
    if statements is None:
        return None
    statements += [f"sd[{quoted(name)}] = sd.pop({quoted(source)})" for name, source in sources.items()]
    statements += [f"sd[{quoted(name)}] = torch.zeros({expected[name][0]})" for name in zeros]
    return Rename(tuple(statements), tuple(surplus), fitting)


def _sources(missing: Sequence[str], spare: Shapes, expected: Shapes) -> dict[str, str]:
    """Find for each missing tensor the only spare one of its kind and shape, if there is exactly one."""
    sources: dict[str, str] = {}
    for name in missing:
        kind = _last_word(name)
        same = [it for it, shape in spare.items() if _last_word(it) == kind and shape == expected[name]]
        if len(same) == 1 and same[0] not in sources.values():
            sources[name] = same[0]
    return sources


def _has_no_bias(name: str, inside: Shapes, sources: Mapping[str, str]) -> bool:
    """Whether `name` is the bias of a layer with a weight and no bias, which equals a bias of zeros."""
    layer, _, kind = name.rpartition(".")
    weight = f"{layer}.weight"
    return kind == "bias" and (weight in inside or weight in sources)


def _may_be_left_out(
    names: Iterable[str], inside: Shapes, expected: Shapes, sources: Collection[str]
) -> bool:
    """Whether tensors may be dropped: scalars, and tensors of modules that the network does not have."""
    roots = set(map(_first_word, (*expected, *sources)))
    return all(
        _first_word(name) not in roots or (name in inside and _is_scalar(inside[name])) for name in names
    )


def _is_scalar(shape: tuple[int, ...]) -> bool:
    return all(side == 1 for side in shape)


def _hold_a_head(names: Iterable[str], shapes: Shapes, setting: Setting) -> bool:
    return any(len(shapes[name]) == 2 and shapes[name][0] == setting.num_classes for name in names)


def _selection(
    prefix: str, inside: Shapes, outside: Shapes, sources: Collection[str], surplus: Sequence[str]
) -> list[str] | None:
    """Return statements that remove the prefix and surplus tensors; None if they would be long."""
    statements = []
    surplus_here = list(surplus)
    if prefix and not any(source in outside for source in sources):
        p = quoted(prefix)
        statements.append(f"sd = {{k.removeprefix({p}): v for k, v in sd.items() if k.startswith({p})}}")
        surplus_here = [name for name in surplus if name in inside]
    elif prefix:
        if not outside.keys().isdisjoint(inside):
            return None
        statements.append(removed_prefix(prefix))
    if surplus_here:
        condition = _condition(surplus_here, {*inside, *outside}.difference(surplus_here))
        if condition is None:
            return None
        statements.append(f"sd = {{k: v for k, v in sd.items() if {condition}}}")
    return statements


def _condition(surplus: Sequence[str], names_to_keep: Collection[str]) -> str | None:
    """Return a short Python condition that is true for the names to keep; None if there is none."""
    if len(surplus) <= _MOST_LISTED:
        return f"k not in [{_list(surplus)}]"
    for word, expression in ((_last_word, 'k.rpartition(".")[2]'), (_first_word, 'k.partition(".")[0]')):
        words = {word(name) for name in surplus}
        if len(words) <= _MOST_LISTED and words.isdisjoint(map(word, names_to_keep)):
            return f"{expression} not in [{_list(sorted(words))}]"
    return None


def _first_word(name: str) -> str:
    return name.partition(".")[0]


def _last_word(name: str) -> str:
    return name.rpartition(".")[2]


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))
