"""The index of library networks by the names in their state dicts.

`python -m nayer_core.networks.fingerprints` writes `nayer_core/contract/fingerprints.json.gz`, which takes an
hour for torchvision and timm. It holds:

    versions   {library: version} of the libraries
    networks   {name: trained parameters at 1000 classes}, in order of their names
    names      {digest of the state dict's names: [tensors, digest of the outermost modules,
               position in `networks`, ...]}
    equal      [[position, ...], ...]: networks with the same names and shapes that computed the same
               from the same weights

Names, not shapes, are indexed, because classes, channels and image size change shapes.
`nayer_core.networks.recognition` builds the few candidates without numbers and compares their shapes.
"""

import dataclasses
import functools
import gzip
import hashlib
import importlib.resources
import json
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nayer_core.contract.errors import SpecError
from nayer_core.networks import registry
from nayer_core.networks.registry import InputSize

_FILE = "fingerprints.json.gz"
_CLASSES = 1000

# Larger networks are not compared: a comparison needs real weights, two times 520 MB at most.
LARGEST_COMPARED = 130_000_000

_COMPARED_SIZES: tuple[InputSize, ...] = ((3, 96, 96), (3, 224, 224), (3, 256, 256))
_ODD_SIDE = 83  # pixels; shows paddings that agree on even sides only
_SPREAD = 0.05  # of the weights of a normalisation, and of biases
_TOLERANCE = 1e-6  # of the largest logit: rounding passes, another epsilon in a normalisation does not

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Index:
    """The content of the index.

    Attributes:
        versions: library -> version.
        networks: name -> trained parameters at 1000 classes.
        by_names: digest of names -> networks with these names.
        by_roots: digest of outermost modules -> (tensors, name) of all networks with these.
        equal: name -> every name, itself included, that computes the same.
    """

    versions: Mapping[str, str]
    networks: Mapping[str, int]
    by_names: Mapping[str, tuple[str, ...]]
    by_roots: Mapping[str, tuple[tuple[int, str], ...]]
    equal: Mapping[str, frozenset[str]]


@functools.cache
def load_index() -> Index:
    """Read the index from the package."""
    packed = importlib.resources.files("nayer_core.contract").joinpath(_FILE).read_bytes()
    document = json.loads(gzip.decompress(packed))
    order = list(document["networks"])
    by_names: dict[str, tuple[str, ...]] = {}
    by_roots: dict[str, tuple[tuple[int, str], ...]] = {}
    for digest, (tensors, roots, *positions) in document["names"].items():
        by_names[digest] = tuple(order[position] for position in positions)
        by_roots[roots] = (*by_roots.get(roots, ()), *((tensors, name) for name in by_names[digest]))
    equal = {
        order[position]: frozenset(order[other] for other in group)
        for group in document["equal"]
        for position in group
    }
    return Index(document["versions"], document["networks"], by_names, by_roots, equal)


def names_digest(names: Iterable[str]) -> str:
    """Digest a state dict's names, in any order, without batch counters."""
    return _digest(name for name in names if not name.endswith("num_batches_tracked"))


def roots_digest(names: Iterable[str]) -> str:
    """Digest the outermost modules in a state dict's names."""
    return _digest({name.split(".", 1)[0] for name in names})


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:8]


def make_index(names: Iterable[str]) -> dict[str, object]:
    """Build every network of `names` without numbers, and collect the content of the index.

    A network that cannot be built, or cannot be run, at its own input size is left out.
    """
    import timm
    import torchvision

    parameters: dict[str, int] = {}
    groups: dict[str, list[str]] = {}
    keys: dict[str, tuple[int, str]] = {}
    for name in sorted(names):
        try:
            network, shapes = _examine(name)
        except (SpecError, NotImplementedError) as error:
            _log.warning("%s is left out: %s", name, error.__cause__ or error)
            continue
        parameters[name] = registry.count_parameters(network)
        digest = names_digest(shapes)
        groups.setdefault(digest, []).append(name)
        keys[digest] = (len(shapes), roots_digest(shapes))
    equal = [same for group in groups.values() for same in equal_networks(group, parameters)]
    position = {name: index for index, name in enumerate(parameters)}
    libraries = {"torchvision": torchvision, "timm": timm}
    return {
        "versions": {name: str(library.__version__) for name, library in libraries.items()},
        "networks": parameters,
        "names": {key: [*keys[key], *(position[name] for name in group)] for key, group in groups.items()},
        "equal": sorted([position[name] for name in same] for same in equal),
    }


def _examine(name: str) -> tuple[nn.Module, Collection[str]]:
    from nayer_core.networks import libraries

    size = libraries.default_input_size(name)
    registry.macs_per_image(name, num_classes=_CLASSES, input_size=size)  # it runs
    network = registry.build_on_meta(name, num_classes=_CLASSES, input_size=size)
    return network, network.state_dict().keys()


def equal_networks(group: Sequence[str], parameters: Mapping[str, int]) -> list[list[str]]:
    """Find the networks in `group` that compute the same logits from the same weights.

    Args:
        group: networks whose state dicts have the same names.
        parameters: name -> trained parameters; the largest networks are not compared.

    Returns:
        Lists of at least two names each.
    """
    alike: dict[tuple[object, ...], list[list[str]]] = {}
    for name in group:
        if parameters[name] > LARGEST_COMPARED:
            continue
        classes = alike.setdefault(tuple(_shapes(name, size) for size in _COMPARED_SIZES), [])
        for members in classes:
            if _are_equal(members[0], name):
                members.append(name)
                break
        else:
            classes.append([name])
    return [members for classes in alike.values() for members in classes if len(members) > 1]


def _are_equal(first: str, second: str) -> bool:
    """Whether both compute the same at the first one or two of `_COMPARED_SIZES` that both take."""
    sizes = [size for size in _COMPARED_SIZES if registry.takes(first, size) and registry.takes(second, size)]
    return bool(sizes) and all(compute_the_same(first, second, size) for size in sizes[:2])


def _shapes(name: str, size: InputSize) -> tuple[object, ...] | None:
    try:
        return tuple(sorted(registry.state_shapes(name, num_classes=10, input_size=size).items()))
    except SpecError:
        return None


def compute_the_same(
    first: str, second: str, input_size: InputSize, *, odd_side: int | None = _ODD_SIDE
) -> bool:
    """Whether two networks give the same logits from the same random weights and images.

    Args:
        first: a network.
        second: one whose state dict has the same names and shapes.
        input_size: (channels, height, width) that both are built for.
        odd_side: side in pixels of further images to compare, which shows paddings that agree on even
            sides only; None compares images of `input_size` alone.
    """
    sizes = [input_size] if odd_side is None else [input_size, (input_size[0], odd_side, odd_side)]
    answers = (_answers(name, input_size, tuple(sizes)) for name in (first, second))
    return all(map(_agree, *answers))


@functools.lru_cache(maxsize=64)  # of a few numbers each: one network is compared with many
def _answers(name: str, built_for: InputSize, sizes: tuple[InputSize, ...]) -> tuple[Tensor | None, ...]:
    """Logits of two random images of each size, from random weights of a fixed seed.

    None for a size that the network rejects.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = registry.build(name, num_classes=10, input_size=built_for).eval()
        for key, tensor in sorted(network.state_dict().items()):
            _fill(key, tensor, generator)
        answers: list[Tensor | None] = []
        for size in sizes:
            try:
                answers.append(network(torch.randn(2, *size, generator=generator)))
            except (AssertionError, RuntimeError, ValueError):
                answers.append(None)
    return tuple(answers)


def _fill(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    """Draw a tensor so that it has an effect, and a deep network's logits neither vanish nor overflow."""
    if name.endswith("running_var"):
        tensor.uniform_(0.5, 2, generator=generator)
    elif not tensor.is_floating_point():
        return
    elif tensor.dim() > 1:
        tensor.normal_(0, 1 / math.sqrt(math.prod(tensor.shape[1:])), generator=generator)
    else:
        tensor.normal_(1 if name.endswith("weight") else 0, _SPREAD, generator=generator)


def _agree(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether both are the same logits, or both networks rejected the images."""
    if first is None or second is None:
        return first is second
    limit = _TOLERANCE * float(first.abs().max())
    return float((first - second).abs().max()) <= limit


def main() -> None:
    """Write the index into the package."""
    from nayer_core.networks import libraries

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = [f"torchvision/{name}" for name in libraries.list_torchvision()]
    names += [f"timm/{name}" for name in libraries.list_timm()]
    document = json.dumps(make_index(names), separators=(",", ":"))
    path = Path(__file__).parents[1] / "contract" / _FILE
    path.write_bytes(gzip.compress(document.encode(), compresslevel=9, mtime=0))
    _log.info("%s: %d bytes", path, path.stat().st_size)


if __name__ == "__main__":
    main()
