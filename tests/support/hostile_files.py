"""Files that a stranger may upload as a teacher, none of which may do harm.

Each builder writes one file; `CASES` tells the code that its refusal must carry. The files are
made here, opcode by opcode where no library would write them.
"""

import io
import json
import os
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
from safetensors.torch import save as save_safetensors
from torch import nn

from nayer_core.contract.errors import ErrorCode as Code

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
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, contents in entries:
            made.writestr(name, contents)
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
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        made.writestr("net/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81.")
        made.writestr("net/code/__torch__.py", b"class Net(Module): pass")
        made.writestr("net/constants.pkl", b"\x80\x02).")
        made.writestr("net/version", b"3\n")
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        made.addfile(tarfile.TarInfo("storages"), io.BytesIO())
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


EVIL = Call(os.system, f"touch {CANARY}")
DEEP = b"N" + b"\x85" * 300_000  # a tuple in a tuple in a tuple
SOUND = {"a": entry([16], 0, 64)}

CASES: dict[str, tuple[Callable[[], bytes], Code]] = {
    # no checkpoint at all
    "empty": (lambda: b"", Code.TRUNCATED_FILE),
    "one byte": (lambda: b"\x80", Code.NOT_A_CHECKPOINT),
    "random": (lambda: bytes(range(17, 250)) * 9, Code.NOT_A_CHECKPOINT),
    "html": (lambda: b"<!doctype html><html><body>404</body></html>", Code.NOT_A_CHECKPOINT),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), Code.NOT_A_CHECKPOINT),
    "elf": (lambda: b"\x7fELF\x02\x01\x01" + bytes(99), Code.NOT_A_CHECKPOINT),
    "json": (lambda: b'{"a": 1}', Code.NOT_A_CHECKPOINT),
    "lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", Code.NOT_A_CHECKPOINT),
    # other formats
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(99), Code.UNSUPPORTED_FORMAT),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(99), Code.UNSUPPORTED_FORMAT),
    "tar": (tar, Code.UNSUPPORTED_FORMAT),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), Code.UNSUPPORTED_FORMAT),
    "gguf": (lambda: b"GGUF\x03" + bytes(99), Code.UNSUPPORTED_FORMAT),
    "onnx": (lambda: b"\x08\x08\x12\x07pytorch" + bytes(99), Code.UNSUPPORTED_FORMAT),
    "bare pickle": (lambda: pickle.dumps({"a": 1}, protocol=4), Code.UNSUPPORTED_FORMAT),
    "bare evil pickle": (lambda: pickle.dumps(EVIL, protocol=2), Code.UNSUPPORTED_FORMAT),
    "npz": (lambda: archive([("images.npy", b"x")]), Code.UNSUPPORTED_FORMAT),
    "pt2": (
        lambda: archive([("net/archive_format", b"pt2"), ("net/version", b"0")]),
        Code.UNSUPPORTED_FORMAT,
    ),
    "torchscript": (torchscript, Code.TORCHSCRIPT),
    # the container
    "zip of safetensors": (
        lambda: archive([("a/b.safetensors", save_safetensors({"a": torch.ones(1)}))]),
        Code.NOT_A_CHECKPOINT,
    ),
    "zip without members": (lambda: end_of_archive(0, 0, 0), Code.NOT_A_CHECKPOINT),
    "zip magic only": (lambda: b"PK\x03\x04", Code.TRUNCATED_FILE),
    "half a zip": (lambda: good()[: len(good()) // 2], Code.TRUNCATED_FILE),
    "trailing junk": (trailing_junk, Code.TRUNCATED_FILE),
    "leading junk": (lambda: b"PK\x03\x04" + bytes(96) + good(), Code.UNSAFE_CHECKPOINT),
    "two zips": (lambda: of_value(EVIL) + good(), Code.UNSAFE_CHECKPOINT),
    "duplicate member": (duplicate_member, Code.UNSAFE_CHECKPOINT),
    "overlapping members": (overlapping, Code.UNSAFE_CHECKPOINT),
    "local name differs": (local_name_differs, Code.UNSAFE_CHECKPOINT),
    "lying sizes": (lying_sizes, Code.UNSAFE_CHECKPOINT),
    "encrypted flag": (encrypted_flag, Code.UNSAFE_CHECKPOINT),
    "path upwards": (lambda: archive([*members(pickled({})), ("archive/../x", b"")]), Code.UNSAFE_CHECKPOINT),
    "deflate bomb": (
        lambda: archive([*members(pickled({})), ("archive/data/1", bytes(64 << 20))], zipfile.ZIP_DEFLATED),
        Code.UNSAFE_CHECKPOINT,
    ),
    "many members": (
        lambda: archive([(f"archive/data/{i}", b"") for i in range(20_200)]),
        Code.UNSAFE_CHECKPOINT,
    ),
    "bad crc": (bad_crc, Code.DAMAGED_FILE),
    # the pickle
    "os.system": (lambda: of_value({"a": EVIL}), Code.UNSAFE_CHECKPOINT),
    "eval": (lambda: of_value(Call(eval, f"open({str(CANARY)!r}, 'w')")), Code.UNSAFE_CHECKPOINT),
    "torch.load": (lambda: of_value(Call(torch.load, str(CANARY))), Code.UNSAFE_CHECKPOINT),
    "numpy scalar": (lambda: of_value({"best": np.float64(0.9), "a": tensor()}), Code.UNSAFE_CHECKPOINT),
    "legacy os.system": (lambda: legacy(pickled(EVIL)), Code.UNSAFE_CHECKPOINT),
    "legacy os.system in its keys": (
        lambda: legacy(pickled({"a": 1}), pickled(EVIL)),
        Code.UNSAFE_CHECKPOINT,
    ),
    "whole module": (whole_module, Code.PICKLED_MODULE),
    "whole legacy module": (whole_legacy_module, Code.PICKLED_MODULE),
    "name from the stack": (lambda: torch_file(pickled(EVIL, protocol=4)), Code.UNSAFE_CHECKPOINT),
    "punycode bomb": (
        lambda: of_opcodes(
            b"c_codecs\nencode\nX"
            + struct.pack("<I", 90_000)
            + b"\xc3\xa9" * 45_000
            + b"X\x08\x00\x00\x00punycode\x86R"
        ),
        Code.UNSAFE_CHECKPOINT,
    ),
    "bytearray bomb": (lambda: of_value(Call(bytearray, 20_000_000_000)), Code.UNSAFE_CHECKPOINT),
    "storage bomb": (
        lambda: of_opcodes(
            b"ctorch\nFloatStorage\n\x8a\x05" + (20_000_000_000).to_bytes(5, "little") + b"\x85R"
        ),
        Code.DAMAGED_FILE,
    ),
    "float tensor bomb": (
        lambda: of_opcodes(
            b"ctorch\nFloatTensor\n\x8a\x05" + (20_000_000_000).to_bytes(5, "little") + b"\x85R"
        ),
        Code.UNSUPPORTED_TENSOR,
    ),
    "deep tuple": (lambda: of_opcodes(DEEP), Code.NOT_A_CHECKPOINT),
    "deep tuple as a key": (lambda: of_opcodes(b"}" + DEEP + b"K\x01s"), Code.TEACHER_REJECTED),
    "hash collisions": (
        lambda: of_value({k * (2**61 - 1): 1 for k in range(3_000)}),
        Code.NOT_A_CHECKPOINT,
    ),
    "billion laughs": (billion_laughs, Code.NOT_A_CHECKPOINT),
    "self reference": (self_reference, Code.NOT_A_CHECKPOINT),
    "items replaced": (
        lambda: of_value(Call(OrderedDict, state={"items": 1, "keys": 2, "values": 3, "__class__": 4})),
        Code.UNSAFE_CHECKPOINT,
    ),
    "no stop": (lambda: torch_file(pickled({"a": tensor()})[:-1]), Code.DAMAGED_FILE),
    "unknown opcode": (lambda: of_opcodes(b"\xff"), Code.DAMAGED_FILE),
    "stack underflow": (lambda: of_opcodes(b"\x86"), Code.DAMAGED_FILE),
    "memo miss": (lambda: of_opcodes(b"h\x07"), Code.DAMAGED_FILE),
    "string of 4 GB": (lambda: of_opcodes(b"X\xff\xff\xff\xffabc"), Code.DAMAGED_FILE),
    "persistent id upwards": (
        lambda: of_value({"a": tensor(storage=Storage(key="../version"))}),
        Code.DAMAGED_FILE,
    ),
    "persistent id of no storage": (lambda: of_value({"a": PersistentId(7)}), Code.DAMAGED_FILE),
    "truncated legacy": (
        lambda: saved({"a": torch.ones(99)}, _use_new_zipfile_serialization=False)[:-80],
        Code.DAMAGED_FILE,
    ),
    "half a legacy pickle": (
        lambda: saved({"a": torch.ones(99)}, _use_new_zipfile_serialization=False)[:90],
        Code.DAMAGED_FILE,
    ),
    "legacy storage bomb": (legacy_storage_bomb, Code.DAMAGED_FILE),
    # what is in it
    "list": (lambda: saved([torch.ones(2)]), Code.NOT_A_CHECKPOINT),
    "bare tensor": (lambda: saved(torch.ones(2)), Code.NOT_A_CHECKPOINT),
    "empty dict": (lambda: saved({}), Code.NOT_A_CHECKPOINT),
    "names that are numbers": (lambda: saved({1: torch.ones(2), "a": torch.ones(2)}), Code.NOT_A_CHECKPOINT),
    "a name that hides": (lambda: saved({"a\u202eb": torch.ones(2)}), Code.NOT_A_CHECKPOINT),
    "a name of 10,000": (lambda: saved({"a" * 10_000: torch.ones(2)}), Code.NOT_A_CHECKPOINT),
    # tensors
    "storage over-declared": (
        lambda: of_value({"a": tensor(size=(64,), stride=(1,), storage=Storage(64))}),
        Code.DAMAGED_FILE,
    ),
    "storage of negative size": (lambda: of_value({"a": tensor(storage=Storage(-1))}), Code.DAMAGED_FILE),
    "view out of bounds": (lambda: of_value({"a": tensor(size=(5, 5))}), Code.DAMAGED_FILE),
    "negative offset": (lambda: of_value({"a": tensor(offset=-8)}), Code.DAMAGED_FILE),
    "negative stride": (lambda: of_value({"a": tensor(stride=(-4, 1))}), Code.DAMAGED_FILE),
    "stride 0": (
        lambda: of_value({"a": tensor(size=(10**6, 10**6), stride=(0, 0))}),
        Code.UNSUPPORTED_TENSOR,
    ),
    "many tensors of one storage": (many_tensors_of_one_storage, Code.UNSUPPORTED_TENSOR),
    "sparse": (lambda: saved({"a": torch.eye(4).to_sparse()}), Code.UNSUPPORTED_TENSOR),
    "meta": (lambda: saved({"a": torch.ones(4, device="meta")}), Code.UNSUPPORTED_TENSOR),
    "complex": (lambda: saved({"a": torch.ones(4, dtype=torch.complex64)}), Code.UNSUPPORTED_TENSOR),
    "bool": (lambda: saved({"a": torch.ones(4, dtype=torch.bool)}), Code.UNSUPPORTED_TENSOR),
    "float8": (lambda: saved({"a": torch.ones(4).to(torch.float8_e4m3fn)}), Code.UNSUPPORTED_TENSOR),
    "quantized": (
        lambda: of_value({"a": Call(torch._utils._rebuild_qtensor, Storage(), 0, (4,), (1,), (), False, {})}),
        Code.UNSUPPORTED_TENSOR,
    ),
    "no numbers": (lambda: saved({"a": torch.ones(4, 0)}), Code.UNSUPPORTED_TENSOR),
    "nine dimensions": (lambda: saved({"a": torch.ones([1] * 9)}), Code.UNSUPPORTED_TENSOR),
    "nan": (lambda: saved({"a": torch.tensor([1.0, float("nan")])}), Code.NON_FINITE_WEIGHTS),
    "infinite": (lambda: saved({"a": torch.tensor([1.0, float("inf")])}), Code.NON_FINITE_WEIGHTS),
    "too large for float32": (
        lambda: saved({"a": torch.tensor([1e300], dtype=torch.float64)}),
        Code.NON_FINITE_WEIGHTS,
    ),
    "negative variance": (
        lambda: saved({"bn.running_var": torch.tensor([1.0, -1.0])}),
        Code.NON_FINITE_WEIGHTS,
    ),
    # safetensors
    "header of 2^63": (lambda: safetensors_file(SOUND, FLOATS, length=2**63), Code.DAMAGED_FILE),
    "header of 5 MB": (lambda: safetensors_file(b"{" + b" " * (5 << 20) + b"}"), Code.DAMAGED_FILE),
    "header cut": (lambda: safetensors_file(SOUND, length=10_000), Code.TRUNCATED_FILE),
    "data cut": (lambda: safetensors_file(SOUND, FLOATS[:-1]), Code.TRUNCATED_FILE),
    "bytes behind": (lambda: safetensors_file(SOUND, FLOATS + b"x"), Code.DAMAGED_FILE),
    "hole": (lambda: safetensors_file({"a": entry([8], 32, 64)}, FLOATS), Code.DAMAGED_FILE),
    "overlap": (
        lambda: safetensors_file({"a": entry([16], 0, 64), "b": entry([8], 32, 64)}, FLOATS),
        Code.DAMAGED_FILE,
    ),
    "end before begin": (lambda: safetensors_file({"a": entry([16], 64, 0)}, FLOATS), Code.DAMAGED_FILE),
    "duplicate names": (duplicate_names, Code.DAMAGED_FILE),
    "negative dimension": (lambda: safetensors_file({"a": entry([-16], 0, 64)}, FLOATS), Code.DAMAGED_FILE),
    "product overflows": (
        lambda: safetensors_file({"a": entry([2**62, 4], 0, 64)}, FLOATS),
        Code.DAMAGED_FILE,
    ),
    "nothing times 10^18": (lambda: safetensors_file({"a": entry([0, 10**18], 0, 0)}), Code.DAMAGED_FILE),
    "flood of nothing": (lambda: nothing_floods(20_001), Code.DAMAGED_FILE),
    "shape of booleans": (
        lambda: safetensors_file({"a": entry([True, 16], 0, 64)}, FLOATS),
        Code.DAMAGED_FILE,
    ),
    "deep JSON": (lambda: safetensors_file(b'{"a":' + b"[" * 200_000, FLOATS), Code.DAMAGED_FILE),
    "no JSON": (lambda: safetensors_file(b"{nonsense}", FLOATS), Code.DAMAGED_FILE),
    "NaN in the header": (lambda: safetensors_file(b'{"a": NaN}', FLOATS), Code.DAMAGED_FILE),
    "no UTF-8": (lambda: safetensors_file(b'{"\xff": 1}', FLOATS), Code.DAMAGED_FILE),
    "no tensors": (lambda: safetensors_file({}), Code.DAMAGED_FILE),
    "entry is a list": (lambda: safetensors_file({"a": [1]}, FLOATS), Code.DAMAGED_FILE),
    "unknown dtype": (
        lambda: safetensors_file({"a": entry([64], 0, 64, "F8_E4M3")}, FLOATS),
        Code.UNSUPPORTED_TENSOR,
    ),
    "dtype is a list": (
        lambda: safetensors_file({"a": entry([16], 0, 64, [1])}, FLOATS),
        Code.UNSUPPORTED_TENSOR,
    ),
    "pictures in safetensors": (
        lambda: safetensors_file({"a": entry([64], 0, 64, "U8")}, FLOATS),
        Code.UNSUPPORTED_TENSOR,
    ),
    "nan in safetensors": (
        lambda: save_safetensors({"a": torch.tensor([float("nan")])}),
        Code.NON_FINITE_WEIGHTS,
    ),
}
