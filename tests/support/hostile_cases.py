"""The hostile teachers, by what is wrong with them, and the code that each refusal must carry."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable

import torch
from safetensors.torch import save as save_safetensors

from nayer_core.contract.errors import ErrorCode as Code
from tests.support.hostile_files import (
    CANARY,
    FLOATS,
    Call,
    PersistentId,
    Storage,
    archive,
    bad_crc,
    billion_laughs,
    duplicate_member,
    duplicate_names,
    encrypted_flag,
    end_of_archive,
    entry,
    good,
    legacy,
    legacy_storage_bomb,
    local_name_differs,
    lying_sizes,
    many_tensors_of_one_storage,
    members,
    nothing_floods,
    of_opcodes,
    of_value,
    overlapping,
    pickled,
    safetensors_file,
    saved,
    self_reference,
    tar,
    tensor,
    torch_file,
    torchscript,
    trailing_junk,
    whole_legacy_module,
    whole_module,
)

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
        Code.UNSUPPORTED_FORMAT,
    ),
    "two roots": (
        lambda: archive([("evil/data.pkl", pickled(EVIL)), *members(pickled({"a": tensor()}))]),
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
        Code.NOT_A_CHECKPOINT,
    ),
    "bytearray bomb": (lambda: of_value(Call(bytearray, 20_000_000_000)), Code.NOT_A_CHECKPOINT),
    "storage bomb": (
        lambda: of_opcodes(
            b"ctorch\nFloatStorage\n\x8a\x05" + (20_000_000_000).to_bytes(5, "little") + b"\x85R"
        ),
        Code.UNSUPPORTED_TENSOR,
    ),
    "float tensor bomb": (
        lambda: of_opcodes(
            b"ctorch\nFloatTensor\n\x8a\x05" + (20_000_000_000).to_bytes(5, "little") + b"\x85R"
        ),
        Code.UNSUPPORTED_TENSOR,
    ),
    "deep tuple": (lambda: of_opcodes(DEEP), Code.NOT_A_CHECKPOINT),
    "deep tuple as a key": (lambda: of_opcodes(b"}" + DEEP + b"K\x01s"), Code.NOT_A_CHECKPOINT),
    "hash collisions": (
        lambda: of_value({k * (2**61 - 1): 1 for k in range(3_000)}),
        Code.NOT_A_CHECKPOINT,
    ),
    "billion laughs": (billion_laughs, Code.NOT_A_CHECKPOINT),
    "self reference": (self_reference, Code.NOT_A_CHECKPOINT),
    "items replaced": (
        lambda: of_value(Call(OrderedDict, state={"items": 1, "keys": 2, "values": 3, "__class__": 4})),
        Code.NOT_A_CHECKPOINT,
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
