"""How a state dict differs from the network it was taken for, and what that says to the client."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nayer_core.contract.errors import SpecError
from nayer_core.networks import registry
from nayer_core.networks.registry import InputSize, Shapes

_MOST_TOLD = 3  # names of each kind in a message
_LONGEST = 120  # characters; names come from an untrusted file

Cause = Literal["classes", "channels", "image_size"]


@dataclass(frozen=True)
class Difference:
    """What keeps a state dict from being loaded; false and of length 0 where nothing does.

    Attributes:
        architecture: the network compared with.
        missing: names that only the network has.
        unexpected: names that only the state dict has.
        misshaped: name -> (shape in the state dict, shape in the network).
    """

    architecture: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)

    def __str__(self) -> str:
        shapes = [f"{name} is {list(is_)}, not {list(not_)}" for name, (is_, not_) in self.misshaped.items()]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": shapes}
        return "; ".join(f"{len(told)} {kind} ({_first(told)})" for kind, told in kinds.items() if told)

    @property
    def only_shapes(self) -> bool:
        """Whether all names agree and some shapes do not."""
        return bool(self.misshaped) and not self.missing and not self.unexpected


def compare(architecture: str, found: Shapes, expected: Shapes) -> Difference:
    """Compare a state dict with what `architecture` expects; counters of batches do not count.

    Args:
        architecture: a name to report.
        found: name -> shape in the state dict.
        expected: name -> shape in the network.
    """
    return Difference(
        architecture,
        missing=tuple(name for name in expected if name not in found and _counts(name)),
        unexpected=tuple(name for name in found if name not in expected and _counts(name)),
        misshaped={
            name: (tuple(found[name]), shape)
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != shape
        },
    )


def causes(difference: Difference, num_classes: int, input_size: InputSize) -> set[Cause]:
    """Find what in the spec, set otherwise, would change all shapes that differ.

    Empty where the network itself is another one: no count of classes and no size of images can
    make the tensors fit.
    """
    if not difference.only_shapes:
        return set()
    channels, height, width = input_size
    variants: dict[Cause, tuple[int, InputSize]] = {
        "classes": (num_classes + 1, input_size),
        "channels": (num_classes, (4 - channels, height, width)),  # 1 or 3
        "image_size": (num_classes, (channels, 2 * height, 2 * width)),
    }
    found: set[Cause] = set()
    explained: set[str] = set()
    for cause, (classes, size) in variants.items():
        changed = _changed(difference.architecture, (num_classes, input_size), (classes, size))
        touched = changed & difference.misshaped.keys()
        if touched:
            found.add(cause)
            explained |= touched
    return found if explained == difference.misshaped.keys() else set()


def classes_found(difference: Difference, num_classes: int, input_size: InputSize) -> int | None:
    """Read the count of classes from the head whose shape differs; None if no head does."""
    head = _changed(difference.architecture, (num_classes, input_size), (num_classes + 1, input_size))
    for name in head & difference.misshaped.keys():
        is_, not_ = difference.misshaped[name]
        if len(is_) == len(not_) and not_[0] == num_classes:
            return is_[0]
    return None


def _changed(architecture: str, one: tuple[int, InputSize], other: tuple[int, InputSize]) -> set[str]:
    try:
        first = registry.state_shapes(architecture, num_classes=one[0], input_size=one[1])
        second = registry.state_shapes(architecture, num_classes=other[0], input_size=other[1])
    except SpecError:
        return set()
    return {name for name, shape in first.items() if second[name] != shape}


def _counts(name: str) -> bool:
    return not name.endswith("num_batches_tracked")  # absent in files older than PyTorch 0.4.1


def _first(told: Sequence[str]) -> str:
    clipped = [words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..." for words in told[:_MOST_TOLD]]
    return ", ".join(clipped + ["..."] * (len(told) > _MOST_TOLD))
