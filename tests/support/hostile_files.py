"""Files that a stranger may upload as a teacher, none of which may do harm.

The builders; `hostile_cases` says what each must be refused with. The files are made opcode by
opcode where no library would write them.
"""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

CANARY = Path("/tmp/nayer-canary-of-hostile-files")
FLOATS = np.arange(16, dtype="<f4").tobytes()
LEGACY_HEAD = b"".join(
    pickle.dumps(value, protocol=2)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "type_sizes": {}})
)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


@dataclass
class Storage:
    """Pickles as the persistent id of a storage in the archive."""

    numel: Any = 16
    key: str = "0"
    kind: Any = torch.FloatStorage
    device: str = "cpu"


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return ("storage", value.kind, value.key, value.device, value.numel)
        return value.pid if isinstance(value, PersistentId) else None


@dataclass
class PersistentId:
    pid: Any


def pickled(value: Any, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    _Pickler(out, protocol).dump(value)
    return out.getvalue()


def tensor(
    *, offset: Any = 0, size: Any = (4, 4), stride: Any = (4, 1), storage: Storage | None = None
) -> Call:
    """A tensor of a storage of 16 floats, unless told otherwise."""
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage or Storage(), offset, size, stride, False, OrderedDict())


def members(data_pkl: bytes) -> list[tuple[str, bytes]]:
    return [
        ("archive/data.pkl", data_pkl),
        ("archive/byteorder", b"little"),
        ("archive/data/0", FLOATS),
        ("archive/version", b"3\n"),
    ]


def archive(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as zip_or_tar:
        for name, contents in entries:
            zip_or_tar.writestr(name, contents)
    return out.getvalue()


def torch_file(data_pkl: bytes) -> bytes:
    return archive(members(data_pkl))


def of_value(value: Any) -> bytes:
    return torch_file(pickled(value))


def of_opcodes(opcodes: bytes) -> bytes:
    return torch_file(b"\x80\x02" + opcodes + b".")


def saved(value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def good() -> bytes:
    return saved({"fc.weight": torch.ones(4, 4), "fc.bias": torch.zeros(4)})


def legacy(main: bytes, keys: bytes = pickle.dumps([], protocol=2), storages: bytes = b"") -> bytes:
    return LEGACY_HEAD + main + keys + storages


def safetensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# --- containers


def trailing_junk() -> bytes:
    return good() + b"junk"


def bad_crc() -> bytes:
    contents = bytearray(torch_file(pickled({"a": tensor()})))
    contents[contents.index(FLOATS) + 5] ^= 0x01
    return bytes(contents)


def central(name: bytes, contents: bytes, offset: int, method: int = 0, size: int | None = None) -> bytes:
    size = len(contents) if size is None else size
    crc = zlib.crc32(contents)
    head = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, method, 0, 0, crc, len(contents), size,
                       len(name), 0, 0, 0, 0, 0, offset)  # fmt: skip
    return head + name


def local(name: bytes, contents: bytes, method: int = 0) -> bytes:
    crc = zlib.crc32(contents)
    head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, method, 0, 0, crc, len(contents), len(contents),
                       len(name), 0)  # fmt: skip
    return head + name + contents


def end_of_archive(count: int, size: int, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, offset, 0)


def by_hand(locals_: bytes, centrals: list[bytes]) -> bytes:
    directory = b"".join(centrals)
    return locals_ + directory + end_of_archive(len(centrals), len(directory), len(locals_))


def overlapping() -> bytes:
    first = local(b"archive/data.pkl", pickled({"a": tensor()}))
    shared = local(b"archive/data/0", FLOATS)
    names = [b"archive/data/0"] * 1 + [f"archive/data/{i}".encode() for i in range(1, 50)]
    entries = [central(b"archive/data.pkl", pickled({"a": tensor()}), 0)]
    entries += [central(name, FLOATS, len(first)) for name in names]
    return by_hand(first + shared, entries)


def local_name_differs() -> bytes:
    data = pickled({"a": tensor()})
    return by_hand(local(b"archive/data.txt", data), [central(b"archive/data.pkl", data, 0)])


def lying_sizes() -> bytes:
    data = pickled({"a": tensor()})
    return by_hand(local(b"archive/data.pkl", data), [central(b"archive/data.pkl", data, 0, size=1 << 31)])


def duplicate_member() -> bytes:
    first, second = pickled({"a": tensor()}), pickled({"b": tensor()})
    name = b"archive/data.pkl"
    start = local(name, first)
    return by_hand(start + local(name, second), [central(name, first, 0), central(name, second, len(start))])


def encrypted_flag() -> bytes:
    contents = bytearray(good())
    at = contents.index(b"PK\x01\x02")
    contents[at + 8] |= 0x01
    return bytes(contents)


def torchscript() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as zip_or_tar:
        zip_or_tar.writestr("net/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81.")
        zip_or_tar.writestr("net/code/__torch__.py", b"class Net(Module): pass", zipfile.ZIP_DEFLATED)
        zip_or_tar.writestr("net/constants.pkl", b"\x80\x02).")
        zip_or_tar.writestr("net/version", b"3\n")
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as zip_or_tar:
        zip_or_tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return out.getvalue()


# --- pickles


def whole_module() -> bytes:
    return saved(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))


def whole_legacy_module() -> bytes:
    return saved(nn.Sequential(nn.Linear(4, 4)), _use_new_zipfile_serialization=False)


def legacy_storage_bomb() -> bytes:
    pid = ("storage", torch.FloatStorage, "0", "cpu", 8_000_000_000, None)
    bomb = Call(torch._utils._rebuild_tensor_v2, PersistentId(pid), 0, (4,), (1,), False, OrderedDict())
    return legacy(pickled({"a": bomb}), pickle.dumps(["0"], protocol=2), struct.pack("<q", 8_000_000_000))


def billion_laughs() -> bytes:
    laugh: dict[str, Any] = {"a": 1}
    for _ in range(12):
        laugh = {f"k{i}": laugh for i in range(12)}
    return of_value(laugh)


def self_reference() -> bytes:
    me: dict[str, Any] = {}
    me["state_dict"] = me
    return of_value(me)


def many_tensors_of_one_storage() -> bytes:
    whole = Storage(100_000)
    views = {f"t{i}": tensor(size=(100_000,), stride=(1,), storage=whole) for i in range(1_000)}
    others = [member for member in members(pickled(views)) if member[0] != "archive/data/0"]
    return archive([*others, ("archive/data/0", bytes(400_000))])


def nothing_floods(count: int) -> bytes:
    return safetensors_file({f"t{i}": entry([0], 0, 0) for i in range(count)})


def duplicate_names() -> bytes:
    one = json.dumps(entry([16], 0, 64))
    return safetensors_file(f'{{"a": {one}, "a": {one}}}'.encode(), FLOATS)
