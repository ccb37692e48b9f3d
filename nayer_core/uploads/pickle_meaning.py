"""The meaning of the few functions that torch's files call, as descriptions; every other name has none."""

from collections.abc import Callable, Sequence
from typing import Any

from nayer_core.uploads.pickled_values import (
    PickledDict,
    PickledName,
    PickledObject,
    PickledStorage,
    PickledTensor,
)

MAX_DIMS = 64  # of any tensor of torch
MAX_COPIES = 2_000_000  # items of lists that are made dicts

_DICTS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_REBUILD_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"  # a plain tensor that was given attributes
_PLAIN_TENSORS = ("torch.Tensor", "torch.nn.parameter.Parameter")
_RECONSTRUCT = ("copyreg._reconstructor", "copy_reg._reconstructor")
_GETATTR = ("builtins.getattr", "__builtin__.getattr")


class BadPickleError(Exception):
    """The pickle does what no file of torch does; the message ends a sentence about the file."""


class Meaning:
    """Describes the results of calls.

    Args:
        named: returns the name of a function or class that a call refers to.
    """

    def __init__(self, named: Callable[[str], PickledName]) -> None:
        self.storages: dict[str, PickledStorage] = {}
        self._named = named
        self._copies = 0

    def call(self, maker: Any, arguments: Any) -> Any:
        """Describe the result of `maker(*arguments)`.

        Raises:
            BadPickleError: no file of torch makes such a call.
            Exception: any other, if the arguments are not those that torch writes.
        """
        if not isinstance(arguments, tuple):
            raise BadPickleError("calls something with arguments that are no tuple")
        if isinstance(maker, PickledObject):
            return PickledObject(maker.name, arguments)
        if not isinstance(maker, PickledName):
            raise BadPickleError("calls what is no function")
        name = maker.name
        if name in _DICTS:
            return self._dict_of(name, arguments)
        if name in (*_REBUILD_TENSOR, *_REBUILD_PARAMETER):
            return _tensor(name, arguments)
        if name == "torch.Size":
            return _shape(*arguments)
        if name in _GETATTR:
            return self._attribute(*arguments)
        if name == _REBUILD_WITH_ATTRIBUTES:
            function, kind, inner, *_ = arguments
            if kind.name in _PLAIN_TENSORS and function.name in (*_REBUILD_TENSOR, *_REBUILD_PARAMETER):
                return _tensor(function.name, inner)
            return PickledObject(kind.name, arguments)
        if name in _RECONSTRUCT and isinstance(arguments[0], PickledName):
            return PickledObject(arguments[0].name)
        return PickledObject(name, arguments)

    def persistent(self, identity: Any) -> Any:
        """Describe what is outside of the pickle: a storage, or the class of a network in an old file.

        Raises:
            Exception: of any class, if the identity is not one that torch writes.
        """
        what, kind, key, *rest = identity
        if what == "module":
            return kind
        _location, numel, *views = rest
        view = views[0] if views else None
        _, start, length = (key, 0, numel) if view is None else view
        storage = PickledStorage(kind.name, key, numel, start, length)
        if what != "storage" or not isinstance(key, str) or not _are_counts((numel, start, length)):
            raise ValueError("no storage")
        known = self.storages.setdefault(key, storage)
        if (known.kind, known.numel) != (storage.kind, storage.numel):
            raise BadPickleError("describes one storage in two ways")
        return storage

    def _dict_of(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """A dict is made empty and then filled, but an OrderedDict of Python 2 is made of a list of pairs."""
        if name.endswith("defaultdict") or not arguments:
            return PickledDict()
        (content,) = arguments
        if isinstance(content, PickledDict):
            return content
        if not isinstance(content, list):
            return PickledObject(name, arguments)
        self._copies += len(content)
        if self._copies > MAX_COPIES:
            raise BadPickleError("makes many dicts of one list")
        result = PickledDict()
        fill(result, [part for key, value in content for part in (key, value)])
        return result

    def _attribute(self, owner: Any, attribute: Any) -> PickledName | PickledObject:
        """A method or member of a class is a name too."""
        if isinstance(owner, PickledName) and isinstance(attribute, str):
            return self._named(f"{owner.name}.{attribute}")
        return PickledObject(_GETATTR[0])


def fill(target: PickledDict, items: Sequence[Any]) -> None:
    """Put `items` (key, value, key, value, ...) into a dict.

    Raises:
        BadPickleError: a key is there already.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str):
            if key in target.entries:
                raise BadPickleError("has a dict with the same key twice")
            target.entries[key] = value
        elif isinstance(value, PickledTensor):
            target.has_other_keys = True


def _tensor(name: str, arguments: tuple[Any, ...]) -> PickledTensor | PickledObject:
    data = arguments[0]
    if isinstance(data, PickledObject):
        return data
    if name in _REBUILD_PARAMETER:
        if not isinstance(data, PickledTensor):
            raise ValueError("no parameter")
        return data
    storage, offset, size, stride, *_ = arguments
    numbers = (offset, *_shape(size), *_shape(stride))
    if not isinstance(storage, PickledStorage) or not all(type(number) is int for number in numbers):
        raise ValueError("no tensor")
    return PickledTensor(storage, offset, size, stride)


def _shape(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple) or len(value) > MAX_DIMS:
        raise ValueError("no shape")
    return value


def _are_counts(values: Sequence[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)
