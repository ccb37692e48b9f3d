"""Changes of names after which tensors fit a known network.

Training code puts a network into a larger module (`backbone.conv1.weight`), gives its head another name
(`fc.1.weight`), and saves more beside it (`criterion.weight`, `total_ops`). Each change is tried: it counts
only if the tensors are then those of the network, with none missing.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from nayer_core.networks.difference import Difference, Setting, compare, head_names
from nayer_core.networks.registry import Shapes

_LEAST_UNDER_PREFIX = 0.2  # share of the tensors: a network may be there with copies of it
_DEEPEST_PREFIX = 4
_AVERAGED = re.compile(r"(^|_)(ema|swa|averaged|average|avg|shadow)(_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class View:
    """The tensors under one prefix.

    Attributes:
        prefix: "" or words with a dot behind each.
        inside: name without the prefix -> shape.
        outside: name -> shape of the others.
    """

    prefix: str
    inside: Shapes
    outside: Shapes


@dataclass(frozen=True)
class Rename:
    """Names under which the tensors are those of a network.

    Attributes:
        renamed: name in the state dict -> name in the network.
        zeros: biases that the network has and the state dict has not.
        moved: names in the state dict of tensors of the head that has another name.
        left_out: names in the state dict that the network does not need.
        shapes: name in the network -> shape.
    """

    renamed: Mapping[str, str]
    zeros: tuple[str, ...]
    moved: tuple[str, ...]
    left_out: tuple[str, ...]
    shapes: Shapes


def is_averaged(keys: Iterable[str]) -> bool:
    """Whether one of these words says that weights are averages over the training (EMA, SWA)."""
    return any(map(_AVERAGED.search, keys))


def views(shapes: Shapes, *, prefer_averaged: bool) -> Iterator[View]:
    """Yield the tensors as they are, then those under each prefix that many names share.

    Args:
        shapes: name -> shape of the state dict.
        prefer_averaged: yield a prefix that names averages before others, or not at all.
    """
    yield View("", shapes, {})
    counts: Counter[str] = Counter()
    for name in shapes:
        words = name.split(".")
        counts.update(
            ".".join(words[:depth]) + "." for depth in range(1, min(len(words), _DEEPEST_PREFIX + 1))
        )
    frequent = [it for it, count in counts.most_common() if count >= _LEAST_UNDER_PREFIX * len(shapes)]
    averaged = [it for it in frequent if is_averaged_prefix(it, shapes)]
    others = [it for it in frequent if it not in averaged]
    for prefix in [*averaged, *others] if prefer_averaged else others:
        yield View(
            prefix,
            {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)},
            {name: shape for name, shape in shapes.items() if not name.startswith(prefix)},
        )


def is_averaged_prefix(prefix: str, names: Iterable[str]) -> bool:
    """Whether tensors under `prefix` are averages over the training; a teacher's are, beside its student's.

    Args:
        prefix: of names.
        names: all that there are.
    """
    if prefix == "teacher.":
        return any(name.startswith("student.") for name in names)
    return is_averaged(prefix.split("."))


def find_rename(
    view: View, difference: Difference, expected: Shapes, setting: Setting, spare: Collection[str]
) -> Rename | None:
    """Find the names to change and to leave out; None unless the tensors are then those of the network.

    Args:
        view: of the state dict.
        difference: of the tensors inside of the view from the network.
        expected: name -> shape in the network.
        setting: of the network.
        spare: names in the state dict of tensors that are no weights, whatever their names say.
    """
    unused = {
        **{name: (name, shape) for name, shape in view.outside.items()},
        **{view.prefix + name: (name, shape) for name, shape in view.inside.items() if name not in expected},
    }
    head = head_names(difference.architecture, setting)
    sources = _heads(difference.missing, unused, expected, head)
    zeros = [name for name in difference.missing if name not in sources]
    present = {*view.inside, *sources}
    if difference.misshaped or not all(_has_no_bias(name, present) for name in zeros):
        return None
    left_out = [name for name in unused if name not in sources.values()]
    if not _may_be_left_out(left_out, view, expected, sources.values(), spare):
        return None
    renamed = {view.prefix + name: name for name in view.inside if name in expected}
    renamed |= {source: name for name, source in sources.items()}
    shapes = {new: expected[new] for new in (*renamed.values(), *zeros)}
    if compare(difference.architecture, shapes, expected):
        return None
    return Rename(renamed, tuple(zeros), tuple(sources.values()), tuple(left_out), shapes)


def _heads(
    missing: Iterable[str],
    unused: Mapping[str, tuple[str, tuple[int, ...]]],
    expected: Shapes,
    head: Collection[str],
) -> dict[str, str]:
    """Find for each missing tensor of the head the only unused one of its kind and shape."""
    sources: dict[str, str] = {}
    for name in missing:
        kind = _last_word(name)
        same = [
            source
            for source, (_, shape) in unused.items()
            if _last_word(source) == kind and shape == expected[name]
        ]
        if name in head and len(same) == 1 and same[0] not in sources.values():
            sources[name] = same[0]
    layers = {_layer(source) for source in sources.values()}
    return sources if len(layers) == len({_layer(name) for name in sources}) else {}


def _has_no_bias(name: str, present: Collection[str]) -> bool:
    """Whether `name` is the bias of a layer with a weight and no bias, which equals a bias of zeros."""
    return _last_word(name) == "bias" and f"{_layer(name)}.weight" in present


def _may_be_left_out(
    names: Iterable[str], view: View, expected: Shapes, sources: Collection[str], spare: Collection[str]
) -> bool:
    """Whether tensors may be dropped: no layer of the network's own modules may be among them."""
    roots = set(map(_first_word, expected))
    roots |= {_first_word(source.removeprefix(view.prefix)) for source in sources}
    for name in names:
        inside = name.removeprefix(view.prefix) if name.startswith(view.prefix) else None
        if inside is None or name in spare:
            continue
        if _first_word(inside) in roots and not _is_scalar(view.inside[inside]):
            return False
    return True


def _is_scalar(shape: tuple[int, ...]) -> bool:
    return all(side == 1 for side in shape)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _first_word(name: str) -> str:
    return name.partition(".")[0]


def _last_word(name: str) -> str:
    return name.rpartition(".")[2]
