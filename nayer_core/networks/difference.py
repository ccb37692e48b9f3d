"""The difference between a state dict and a network, and what the client can change."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nayer_core.contract.errors import SpecError
from nayer_core.networks import registry
from nayer_core.networks.registry import InputSize, Shapes

_MOST_NAMED = 3  # names of each kind in a message
_LONGEST = 120  # characters; names come from an untrusted file

# Limits of what is tried: a stranger's file may have shapes for which no network can be built.
MOST_CLASSES, _MOST_CHANNELS = 100_000, 64
# Sides of square images to try if a network seems trained with another size than the client gave.
_USUAL_SIDES = (28, 32, 48, 64, 84, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 336, 384, 448, 512)


@dataclass(frozen=True)
class Difference:
    """The reasons why a state dict cannot be loaded; false and of length 0 if there are none.

    Attributes:
        architecture: the network compared with.
        missing: names that only the network has.
        unexpected: names that only the state dict has.
        misshaped: name -> (shape in the state dict, shape in the network).
        fitting: how many tensors agree in name and shape.
    """

    architecture: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    fitting: int = 0

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)

    def __str__(self) -> str:
        shapes = [f"{name} is {list(is_)}, not {list(not_)}" for name, (is_, not_) in self.misshaped.items()]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": shapes}
        return "; ".join(f"{len(names)} {kind} ({first(names)})" for kind, names in kinds.items() if names)

    @property
    def only_shapes(self) -> bool:
        """Whether all names agree and some shapes do not."""
        return bool(self.misshaped) and not self.missing and not self.unexpected


def compare(architecture: str, shapes: Shapes, expected: Shapes) -> Difference:
    """Compare a state dict with what `architecture` expects, ignoring batch counters.

    Args:
        architecture: a name to report.
        shapes: name -> shape in the state dict.
        expected: name -> shape in the network.
    """
    misshaped = {
        name: (tuple(shapes[name]), shape)
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != shape
    }
    shared = sum(name in shapes for name in expected if _is_compared(name))
    return Difference(
        architecture,
        missing=tuple(name for name in expected if name not in shapes and _is_compared(name)),
        unexpected=tuple(name for name in shapes if name not in expected and _is_compared(name)),
        misshaped=misshaped,
        fitting=shared - len(misshaped),
    )


@dataclass(frozen=True)
class Setting:
    """The parameters of a network: number of classes, and (channels, height, width) of images."""

    num_classes: int
    input_size: InputSize


def find_setting(shapes: Shapes, difference: Difference, setting: Setting) -> Setting | None:
    """Try to find a setting for which the network has these tensors.

    Args:
        shapes: name -> shape of the state dict.
        difference: from the network in `setting`; all names agree.
        setting: what the client gave.

    Returns:
        A setting that was tried and fits. None if the tensors are of another network, or of one trained with
        images of an unusual size.
    """
    if not difference.only_shapes:
        return None
    for other in _settings(difference, setting):
        try:
            expected = registry.state_shapes(
                difference.architecture, num_classes=other.num_classes, input_size=other.input_size
            )
        except SpecError:
            continue
        if not compare(difference.architecture, shapes, expected):
            return other
    return None


def depends_on_image_size(difference: Difference, setting: Setting) -> bool:
    """Whether all differing shapes depend on the height, the width or the number of classes."""
    channels, height, width = setting.input_size
    resized = _changed(
        difference.architecture, setting, Setting(setting.num_classes, (channels, 2 * height, 2 * width))
    )
    head = head_names(difference.architecture, setting)
    misshaped = difference.misshaped.keys()
    return bool(misshaped & resized) and misshaped <= resized | head


def head_with_other_inputs(difference: Difference, setting: Setting) -> str | None:
    """Describe the last layer if it alone differs, and in its inputs; else None."""
    head = head_names(difference.architecture, setting)
    if not difference.misshaped.keys() <= head:
        return None
    for name, (is_, not_) in difference.misshaped.items():
        if len(is_) == len(not_) >= 2 and is_[1:] != not_[1:]:
            return f"{name[:_LONGEST]} has {is_[1]} inputs where {difference.architecture} has {not_[1]}"
    return None


def head_names(architecture: str, setting: Setting) -> set[str]:
    """Names of the tensors whose shape depends on the number of classes."""
    return _changed(architecture, setting, Setting(setting.num_classes + 1, setting.input_size))


def count(names: Iterable[str]) -> int:
    """Count the tensors that are compared, without batch counters."""
    return sum(_is_compared(name) for name in names)


def first(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Join the first names for a message; long names are shortened."""
    short_names = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:most]]
    return ", ".join(short_names + ["..."] * (len(names) > most))


def _settings(difference: Difference, setting: Setting) -> Iterator[Setting]:
    """Yield the settings that the shapes suggest, those nearest to the client's first."""
    channels, height, width = setting.input_size
    classes = [setting.num_classes]
    depths = [channels]
    for is_, not_ in difference.misshaped.values():
        if is_ and not_ and not_[0] == setting.num_classes and 0 < is_[0] <= MOST_CLASSES:
            classes.append(is_[0])
        if len(is_) == len(not_) == 4 and not_[1] == channels and 0 < is_[1] <= _MOST_CHANNELS:
            depths.append(is_[1])
    sides = [(height, width)]
    if _resizes(difference, setting):
        sides += [(side, side) for side in _USUAL_SIDES]
    for side, depth, count in itertools.product(sides, dict.fromkeys(depths), dict.fromkeys(classes)):
        other = Setting(count, (depth, *side))
        if other != setting:
            yield other


def _resizes(difference: Difference, setting: Setting) -> bool:
    channels, height, width = setting.input_size
    resized = Setting(setting.num_classes, (channels, 2 * height, 2 * width))
    return bool(_changed(difference.architecture, setting, resized) & difference.misshaped.keys())


def _changed(architecture: str, one: Setting, other: Setting) -> set[str]:
    try:
        first_shapes, second_shapes = (
            registry.state_shapes(architecture, num_classes=it.num_classes, input_size=it.input_size)
            for it in (one, other)
        )
    except SpecError:
        return set()
    return {name for name, shape in first_shapes.items() if second_shapes[name] != shape}


def _is_compared(name: str) -> bool:
    return not name.endswith("num_batches_tracked")  # absent in files older than PyTorch 0.4.1
