"""What a stranger's pickle describes: plain values, descriptions of tensors, and inert objects."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PickledName:
    """The name of a function or class, never looked up."""

    name: str


@dataclass(eq=False, slots=True)
class PickledDict:
    """A dict.

    Attributes:
        entries: what is under keys that are texts.
        has_other_keys: whether a tensor is under a key that is no text.
    """

    entries: dict[str, Any] = field(default_factory=dict)
    has_other_keys: bool = False


@dataclass(eq=False, slots=True)
class PickledObject:
    """What a function or class with no meaning here would have made.

    Attributes:
        name: of the function or class.
        arguments: of the call.
        parts: its entries and its attributes.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    parts: list[PickledDict] = field(default_factory=list)

    @property
    def is_network(self) -> bool:
        """Whether it has the attributes of a `torch.nn.Module`."""
        return any("_modules" in part.entries for part in self.parts)


@dataclass(frozen=True, slots=True)
class PickledStorage:
    """Numbers outside of the pickle.

    Attributes:
        kind: name of the storage's class, e.g. `torch.FloatStorage`.
        key: where the numbers are in the file.
        numel: how many numbers are there.
        start: the first one that belongs to the storage.
        length: how many belong to it; `numel` unless it is a view.
    """

    kind: str
    key: str
    numel: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A view of a storage, as the pickle describes it; not checked.

    Attributes:
        storage: where its numbers are.
        offset: of the first number, in the storage.
        size: along each dimension.
        stride: along each dimension.
    """

    storage: PickledStorage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Pickle:
    """What a pickle describes.

    Attributes:
        root: dicts, tensors, plain values and inert objects.
        names: the functions and classes it names, in order.
        storages: key -> storage.
    """

    root: Any
    names: tuple[str, ...]
    storages: dict[str, PickledStorage]
