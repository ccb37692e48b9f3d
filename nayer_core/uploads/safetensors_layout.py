"""The safetensors layout: an 8-byte length, a JSON header, and bytes that the header divides without gaps.

It is read and written here for two reasons. The common library accepts duplicate names and headers of 100 MB.
And both must work on open files, because no path can be opened in the jail.
"""

import json
import math
import struct
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, BinaryIO

import torch
from torch import Tensor

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_DIMS = 8
MAX_NAME_CHARS = 512
_LENGTH = struct.Struct("<Q")

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    # Not taken as weights; they may be beside them.
    "BOOL": torch.bool,
    "I8": torch.int8,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class BadLayoutError(Exception):
    """The file is no sound safetensors file; the message continues a sentence that begins with its name."""


class IncompleteError(BadLayoutError):
    """The file ends too early."""


class UnknownDtypeError(BadLayoutError):
    """The file is sound, but holds numbers of a type that is not read here."""


def read_tensors(file: BufferedReader, size: int) -> dict[str, Tensor]:
    """Read every tensor of a file after checking its whole header; the file's metadata is dropped.

    Args:
        file: open for reading.
        size: of the file, in bytes.

    Raises:
        BadLayoutError: lengths, names, shapes or offsets do not add up.
    """
    header, start = _read_header(file, size)
    placed = sorted((_place(name, entry) for name, entry in header.items()), key=lambda place: place[3:])
    end_of_last = 0
    for name, _, _, begin, end in placed:
        if begin != end_of_last:
            raise BadLayoutError(f"leaves a hole or an overlap before tensor {name!r}")
        end_of_last = end
    if start + end_of_last > size:
        raise IncompleteError(f"is incomplete: it has {size} bytes of {start + end_of_last}")
    if start + end_of_last < size:
        raise BadLayoutError(f"has {size - start - end_of_last} bytes after its last tensor")
    contents = bytearray(end_of_last)  # not bytes: torch needs writable memory
    if file.readinto(contents) != end_of_last:
        raise IncompleteError("is incomplete: it was cut while it was read")
    return {
        name: torch.frombuffer(contents, dtype=dtype, count=math.prod(shape), offset=begin).reshape(shape)
        for name, dtype, shape, begin, _ in placed
    }


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write dense tensors one at a time, without a second copy of all of them."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(_LENGTH.pack(len(text)) + text)
    for tensor in tensors.values():
        file.write(tensor.contiguous().numpy().data)


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    file.seek(0)
    prefix = file.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        raise IncompleteError(f"is incomplete: it has {size} bytes")
    (length,) = _LENGTH.unpack(prefix)
    if length > MAX_HEADER_BYTES:
        raise BadLayoutError(f"has a header of {length} bytes; the limit is {MAX_HEADER_BYTES}")
    text = file.read(length)
    if len(text) < length:
        raise IncompleteError(f"is incomplete: its header has {len(text)} bytes of {length}")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadLayoutError("has a header that is not plain JSON with each name once") from error
    if not isinstance(header, dict):
        raise BadLayoutError("has a header that is no JSON object")
    header.pop("__metadata__", None)
    if not 1 <= len(header) <= MAX_TENSORS:
        raise BadLayoutError(f"has {len(header)} tensors; 1 to {MAX_TENSORS} are allowed")
    return header, _LENGTH.size + length


def _place(name: str, entry: Any) -> tuple[str, torch.dtype, tuple[int, ...], int, int]:
    """Check one entry of the header; offsets are in bytes after the header."""
    if len(name) > MAX_NAME_CHARS or not isinstance(entry, dict):
        raise BadLayoutError("has an entry that describes no tensor")
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadLayoutError("has an entry that describes no tensor")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > MAX_DIMS:
        raise BadLayoutError(f"has a shape or offsets that cannot be, or more than {MAX_DIMS} dimensions")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise UnknownDtypeError(f"holds numbers that are none of {', '.join(_DTYPES)}")
    if math.prod(shape) < 1:
        raise BadLayoutError("has a tensor of no numbers")
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise BadLayoutError("has a tensor whose shape and bytes disagree")
    return name, dtype, tuple(shape), offsets[0], offsets[1]


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a name occurs twice")
    return unique


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
