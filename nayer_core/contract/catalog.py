"""Names of architectures and text encoders, and the nearest one when a name is wrong.

Our own families are listed here. The classification networks of torchvision and timm come from the
fingerprint index beside this file, which `python -m nayer_core.networks.fingerprints` writes. A test compares
both with the networks that `nayer_core.networks.registry` can build.
"""

import difflib
import functools
import gzip
import importlib.resources
import json
import re
from collections.abc import Sequence

from pydantic_core import PydanticCustomError

CIFAR_RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
RESNETS = ("resnet18", "resnet34", "resnet50")
VGGS = ("vgg8_bn", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
OWN_ARCHITECTURES = (*CIFAR_RESNETS, *RESNETS, *VGGS, "lenet5", "alexnet", "mobilenet_v2")

# The wide ResNets of the paper; any wrn_{depth}_{width} with depth = 6n + 4 can be built.
WIDE_RESNETS = ("wrn_16_1", "wrn_16_2", "wrn_28_10", "wrn_40_1", "wrn_40_2", "wrn_40_4")
_WIDE_RESNET = re.compile(r"wrn_([1-9]\d{0,2})_([1-9]\d?)")

MAX_NAME_CHARS = 200

TEXT_ENCODERS = ("open_clip", "sbert", "file", "one_hot", "gaussian")
TEXT_ENCODER_NAMES = ("auto", *TEXT_ENCODERS)


_MOST_NEAREST, _ALIKE = 3, 0.6  # share of the letters that two spellings have in common
_FEW_NAMES = 12


@functools.cache
def library_architectures() -> tuple[str, ...]:
    """Names of the torchvision and timm classification networks, e.g. `torchvision/resnet18`."""
    index = importlib.resources.files(__package__).joinpath("fingerprints.json.gz").read_bytes()
    return tuple(sorted(json.loads(gzip.decompress(index))["networks"]))


def is_wide_resnet(name: str) -> bool:
    """Whether `name` is a wide ResNet that can be built: depth 6n + 4."""
    match = _WIDE_RESNET.fullmatch(name)
    return match is not None and int(match[1]) >= 10 and (int(match[1]) - 4) % 6 == 0


def require_architecture(name: str) -> str:
    """Return `name` if a network of that name can be built.

    Raises:
        PydanticCustomError: `unknown_architecture`, with the nearest names.
    """
    if name in OWN_ARCHITECTURES or is_wide_resnet(name):
        return name
    return require_name(name, (*OWN_ARCHITECTURES, *WIDE_RESNETS, *library_architectures()), "architecture")


def require_text_encoder(name: str) -> str:
    """Return `name` if it is a text encoder.

    Raises:
        PydanticCustomError: `unknown_text_encoder`, with the nearest names.
    """
    return require_name(name, TEXT_ENCODER_NAMES, "text encoder")


def require_name(name: str, choices: Sequence[str], kind: str) -> str:
    """Return `name` if it is one of `choices`; otherwise name the nearest ones.

    Raises:
        PydanticCustomError: of type `unknown_<kind>`, which is also the stable code.
    """
    if name in choices:
        return name
    name = name[:MAX_NAME_CHARS]  # no name is longer, and comparing a longer one would take seconds
    names = _nearest(name, choices)
    relation = "the nearest are" if len(names) > 1 else "the nearest is"
    if not names and len(choices) <= _FEW_NAMES:
        names, relation = list(choices), "there are"
    message = "there is no {kind} named '{name}'" + ("; {relation} {names}" if names else "")
    raise PydanticCustomError(
        f"unknown_{kind.replace(' ', '_')}",
        message,
        {"kind": kind, "name": name, "relation": relation, "names": ", ".join(names)},
    )


def _nearest(name: str, choices: Sequence[str]) -> list[str]:
    """Find the names that contain `name`, the likeliest first, then those with a similar spelling."""
    letters = _letters(name).strip("/")
    if not letters:
        return []
    holding = [it for it in choices if letters in _letters(it)]
    end = letters.rpartition("/")[2]
    holding.sort(key=lambda it: (_last(it) != end, not _last(it).startswith(end), "/" in it, len(it)))
    by_spelling = {_last(it): it for it in reversed(choices)}  # our own before a library's
    alike = difflib.get_close_matches(end, by_spelling, _MOST_NEAREST, _ALIKE)
    return list(dict.fromkeys((*holding, *(by_spelling[spelling] for spelling in alike))))[:_MOST_NEAREST]


def _last(name: str) -> str:
    return _letters(name.rpartition("/")[2])


def _letters(name: str) -> str:
    """Normalise a spelling: no capitals, hyphens or underscores."""
    return re.sub(r"[^a-z0-9/]", "", name.lower())
