"""Reads the numbers of tensors that a pickle describes: members of an archive, or the end of an old file."""

import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import IO, BinaryIO, Protocol

import torch
from torch import Tensor

from nayer_core.uploads.pickled_values import PickledStorage, PickledTensor

_LENGTH = struct.Struct("<q")
_CHUNK = 1 << 20

# Class of a storage, of torch or torch.cuda -> type of its numbers.
_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "FloatStorage": torch.float32,
        "DoubleStorage": torch.float64,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
        "ComplexFloatStorage": torch.complex64,
        "ComplexDoubleStorage": torch.complex128,
    }
)


class BadStorageError(Exception):
    """The file does not hold a storage, or a view of one; the message ends a sentence about the file."""


class Storages(Protocol):
    """The storages of a file."""

    def numbers(self, storage: PickledStorage) -> bytearray:
        """Read the bytes of a whole storage, in the order of this machine.

        Raises:
            BadStorageError: the file does not hold them.
        """


class ArchivedStorages:
    """The storages of a zip archive, a member each.

    Args:
        archive: checked.
        members: name in the archive's folder -> name in the archive.
    """

    def __init__(self, archive: zipfile.ZipFile, members: Mapping[str, str]) -> None:
        self._archive = archive
        self._members = members
        order = members.get("byteorder")
        self._is_swapped = order is not None and archive.read(order).strip() == b"big"

    def numbers(self, storage: PickledStorage) -> bytearray:
        """Read one member, whose length must be that of the storage."""
        member = self._members.get(f"data/{storage.key}")
        length = storage.numel * _item_bytes(storage)
        if member is None or self._archive.getinfo(member).file_size != length:
            raise BadStorageError("describes numbers that it does not hold")
        with self._archive.open(member) as contents:
            data = _read(contents, length)
        return _swapped(data, _item_bytes(storage)) if self._is_swapped else data


class LegacyStorages:
    """The storages behind the pickles of a file older than torch 1.6: for each its length, and its bytes.

    Args:
        file: at the first storage.
        size: of the file, in bytes.
        keys: of the storages, in the order of the file.
        storages: key -> storage.
        is_swapped: whether the file comes from a machine of the other byte order.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        keys: Iterable[str],
        storages: Mapping[str, PickledStorage],
        *,
        is_swapped: bool,
    ) -> None:
        self._file = file
        self._starts: dict[str, int] = {}
        self._is_swapped = is_swapped
        for key in keys:
            storage = storages.get(key)
            head = file.read(_LENGTH.size)
            if storage is None or key in self._starts or len(head) < _LENGTH.size:
                raise BadStorageError("ends before its last tensor, or lists other ones than it describes")
            start, length = file.tell(), storage.numel * _item_bytes(storage)
            if _LENGTH.unpack(head)[0] != storage.numel or start + length > size:
                raise BadStorageError("describes numbers that it does not hold")
            self._starts[key] = start
            file.seek(start + length)

    def numbers(self, storage: PickledStorage) -> bytearray:
        """Read one storage."""
        if storage.key not in self._starts:
            raise BadStorageError("describes numbers that it does not hold")
        self._file.seek(self._starts[storage.key])
        data = _read(self._file, storage.numel * _item_bytes(storage))
        return _swapped(data, _item_bytes(storage)) if self._is_swapped else data


def dtype_of(storage: PickledStorage) -> torch.dtype | None:
    """Return the type of a storage's numbers; None if it is not known here."""
    return _DTYPES.get(storage.kind.rpartition(".")[2])


def check_view(tensor: PickledTensor) -> None:
    """Check that every number of a tensor is inside its storage.

    Raises:
        BadStorageError: one is not, or the description makes no sense.
    """
    storage = tensor.storage
    if len(tensor.size) != len(tensor.stride) or min((*tensor.size, *tensor.stride, tensor.offset)) < 0:
        raise BadStorageError("describes a tensor that cannot be")
    last = tensor.offset + sum(
        (side - 1) * stride for side, stride in zip(tensor.size, tensor.stride, strict=True)
    )
    if 0 not in tensor.size and last >= storage.length:
        raise BadStorageError("describes a tensor with numbers outside of its storage")
    if storage.start + storage.length > storage.numel:
        raise BadStorageError("describes a part of a storage that is not there")


def tensors_of(described: Mapping[str, PickledTensor], storages: Storages) -> Iterator[tuple[str, Tensor]]:
    """Read tensors that were checked, by name, those of one storage together: each is read once.

    Args:
        described: name -> tensor of a known dtype, with a number at least.
        storages: of the file.

    Raises:
        BadStorageError: the file does not hold the numbers.
    """
    by_storage: dict[str, list[str]] = {}
    for name, tensor in described.items():
        by_storage.setdefault(tensor.storage.key, []).append(name)
    for names in by_storage.values():
        storage = described[names[0]].storage
        whole = torch.frombuffer(storages.numbers(storage), dtype=dtype_of(storage) or torch.uint8)
        for name in names:
            tensor = described[name]
            yield name, whole.as_strided(tensor.size, tensor.stride, tensor.storage.start + tensor.offset)


def _item_bytes(storage: PickledStorage) -> int:
    dtype = dtype_of(storage)
    # A storage of unknown numbers is never read, but an old file cannot be read past it.
    if dtype is None:
        raise BadStorageError(f"has numbers of the unknown kind {storage.kind!a}")
    return dtype.itemsize


def _read(file: IO[bytes], length: int) -> bytearray:
    data = bytearray(length)
    for start in range(0, length, _CHUNK):
        chunk = file.read(min(_CHUNK, length - start))
        if len(chunk) != min(_CHUNK, length - start):
            raise BadStorageError("ends before its last tensor")
        data[start : start + len(chunk)] = chunk
    return data


def _swapped(data: bytearray, item_bytes: int) -> bytearray:
    swapped = bytearray(len(data))
    for place in range(item_bytes):
        swapped[place::item_bytes] = data[item_bytes - 1 - place :: item_bytes]
    return swapped
