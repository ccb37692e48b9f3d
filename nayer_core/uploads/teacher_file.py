"""Reads the tensors of a stranger's teacher: dense, finite and float32. Runs in the jail."""

import functools
import io
import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks.client_file import ClientFile, quoted
from nayer_core.networks.weights import find_state_dict
from nayer_core.uploads import pickle_scan, safetensors_layout, zip_archive
from nayer_core.uploads.file_kind import FileKind, identify
from nayer_core.uploads.other_files import other_archive
from nayer_core.uploads.refusals import DENSE, WRITES, printable, refuse

_PICKLES_BEFORE_LEGACY_STORAGES = 5  # magic number, protocol, system, tensors, names of storages
_INTEGERS = (torch.int64, torch.int32)
_LARGEST_EXPANSION = 4  # times; weights hardly compress
_FINDERS_FOLDER = "__MACOSX"
_PACK_AGAIN = (
    'import zipfile; old = zipfile.ZipFile("teacher.pt"); new = zipfile.ZipFile("new_teacher.pt", "w");'
    ' [new.writestr(n, old.read(n)) for n in old.namelist() if n[-1] != "/" and n[:8] != "__MACOSX"];'
    " new.close()"
)
_CLONED = "sd = {k: v.clone() for k, v in sd.items() if isinstance(v, torch.Tensor)}"
_AGAIN = "Upload it again; if that does not help, save it again."


@dataclass(frozen=True)
class TeacherFile:
    """The content of a teacher file.

    Args:
        kind: its layout.
        keys: lead to the state dict, e.g. ("state_dict",); outermost first.
        tensors: float32, and int64 for counters and indices.
    """

    kind: FileKind
    keys: tuple[str, ...]
    tensors: dict[str, Tensor]


def read_teacher(file: BufferedReader) -> TeacherFile:
    """Read a state dict out of any of the accepted layouts.

    Raises:
        TeacherError: the file is no teacher, is damaged, or has content that no teacher needs.
    """
    size = os.fstat(file.fileno()).st_size
    kind = identify(file, size)
    if kind is FileKind.SAFETENSORS:
        return TeacherFile(
            kind, (), _dense(_read_safetensors(file, size), size, ClientFile(safetensors=True))
        )
    if kind is FileKind.TORCH_ZIP:
        _check_zip(file, size)
    else:
        _check_legacy(file)
    state, keys = _unwrap(_load(file))
    return TeacherFile(kind, keys, _dense(state, size, ClientFile(keys=keys)))


@functools.cache
def warm_up() -> None:
    """Load, once and before the jail, the code that reading in the jail would import lazily."""
    for new_layout in (True, False):
        file = io.BytesIO()
        state = {"a": torch.ones(2, 2, dtype=torch.float16), "b": torch.ones(1, dtype=torch.bfloat16)}
        torch.save(state, file, _use_new_zipfile_serialization=new_layout)
        safetensors_layout.write_tensors(
            io.BytesIO(), _dense(_load(file), len(file.getvalue()), ClientFile())
        )
    file.seek(0)
    pickle_scan.require_tensors_only(file)


def _read_safetensors(file: BufferedReader, size: int) -> dict[str, Tensor]:
    try:
        return safetensors_layout.read_tensors(file, size)
    except safetensors_layout.IncompleteError as error:
        raise refuse(ErrorCode.TRUNCATED_FILE, f"The safetensors file {error}.", _AGAIN) from error
    except safetensors_layout.UnknownDtypeError as error:
        line = ClientFile(safetensors=True).edited("sd = {k: v.float() for k, v in sd.items()}")
        raise refuse(
            ErrorCode.UNSUPPORTED_TENSOR, f"The safetensors file {error}.", f"{WRITES} {line}"
        ) from error
    except safetensors_layout.BadLayoutError as error:
        raise refuse(ErrorCode.DAMAGED_FILE, f"The safetensors file {error}.", _AGAIN) from error


def _check_zip(file: BinaryIO, size: int) -> None:
    rules = zip_archive.ArchiveRules(deflated=False, max_bytes=size)
    try:
        archive = zip_archive.open_archive(file, size)
        names = {member.partition("/")[2]: member for member in archive.namelist()}
        # Before the structure: TorchScript has compressed members, and deserves its own message.
        _check_purpose(archive.namelist(), names)
        _check_packing(archive, size)
        zip_archive.check_structure(archive, file, rules)
        zip_archive.check_sums(archive)
        with archive.open(names["data.pkl"]) as pickled:
            pickle_scan.require_tensors_only(io.BytesIO(pickled.read()))
    except zip_archive.CutShortError as error:
        raise refuse(ErrorCode.TRUNCATED_FILE, f"The teacher's archive {error}.", _AGAIN) from error
    except zip_archive.ChecksumError as error:
        raise refuse(ErrorCode.DAMAGED_FILE, f"The teacher's archive {error}.", _AGAIN) from error
    except zip_archive.BadArchiveError as error:
        raise refuse(
            ErrorCode.UNSAFE_CHECKPOINT, f"The teacher's archive {error}; torch.save writes none like it."
        ) from error


def _check_purpose(members: list[str], names: Mapping[str, str]) -> None:
    """Refuse the other archives that torch and NumPy write, each with its own message."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise pickle_scan.torchscript()
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        raise refuse(
            ErrorCode.UNSUPPORTED_FORMAT,
            "The teacher file is an exported program (.pt2); only weights are accepted.",
            "Upload what this line writes: "
            'torch.save(torch.export.load("teacher.pt2").state_dict, "weights.pt")',
        )
    if any(member.endswith(".npy") for member in members):
        raise refuse(
            ErrorCode.UNSUPPORTED_FORMAT,
            "The teacher file is an archive of NumPy arrays.",
            f'{WRITES} import numpy, torch; arrays = numpy.load("teacher.npz");'
            ' torch.save({k: torch.from_numpy(arrays[k]) for k in arrays}, "teacher.pt")',
        )
    roots = {member.partition("/")[0] for member in members} - {_FINDERS_FOLDER}
    if "data.pkl" not in names or len(roots) > 1:  # torch might read another data.pkl than the one checked
        raise other_archive(members)


def _check_packing(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that was unpacked and packed again: sound, but compressed or with extra folders.

    An archive that unpacks to many times its size is left to the check of the structure.
    """
    members = archive.infolist()
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    folders = any(member.is_dir() or member.filename.startswith(_FINDERS_FOLDER) for member in members)
    unpacked = sum(member.file_size for member in members)
    if (compressed or folders) and unpacked <= _LARGEST_EXPANSION * size:
        kind = "its members are compressed" if compressed else "it has members that torch.save does not write"
        raise refuse(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"The teacher file was unpacked and packed again by another program: {kind}.",
            f"{WRITES} {_PACK_AGAIN}",
        )


def _check_legacy(file: BinaryIO) -> None:
    file.seek(0)
    for _ in range(_PICKLES_BEFORE_LEGACY_STORAGES):
        pickle_scan.require_tensors_only(file)


def _load(file: BinaryIO | io.BytesIO) -> Any:
    """Load the tensors with torch under `weights_only`; there is no second try with weaker rules."""
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deprecated storages: advice to others
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # torch raises any error for a damaged file, and its messages advise unsafe things.
        raise refuse(
            ErrorCode.DAMAGED_FILE, "The teacher file's tensors cannot be put together.", _AGAIN
        ) from error


def _unwrap(document: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    try:
        return find_state_dict(document)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        # A pickle may replace the methods of its dicts.
        raise refuse(
            ErrorCode.UNSAFE_CHECKPOINT, "The teacher file holds objects that are not what they seem."
        ) from error


def _dense(state: Mapping[str, Tensor], file_bytes: int, source: ClientFile) -> dict[str, Tensor]:
    """Check every tensor; floats become float32, integers int64."""
    if len(state) > safetensors_layout.MAX_TENSORS:
        raise refuse(
            ErrorCode.UNSUPPORTED_TENSOR,
            f"The teacher has {len(state)} tensors; the limit is {safetensors_layout.MAX_TENSORS}.",
        )
    total = 0
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not 1 <= len(name) <= safetensors_layout.MAX_NAME_CHARS or not name.isprintable():
            raise refuse(
                ErrorCode.NOT_A_CHECKPOINT, f"{printable(name)} is no name of a tensor in a state dict."
            )
        _check_plain(name, tensor, source)
        total += tensor.numel() * tensor.element_size()
        if total > 2 * file_bytes:
            message = f"The teacher's tensors take more than twice the {file_bytes} bytes of its file."
            raise _strange(message, _CLONED, source)
        tensors[name] = _canonical(name, tensor)
    return tensors


def _check_plain(name: str, tensor: Tensor, source: ClientFile) -> None:
    shown_name, entry = printable(name), f"sd[{quoted(name)}]"
    as_float = f"{entry} = {entry}.float()"
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        raise _strange(f"{shown_name} is not a dense tensor.", DENSE, source)
    if tensor.device.type != "cpu":
        raise refuse(ErrorCode.UNSUPPORTED_TENSOR, f"{shown_name} is a tensor without data.")
    if tensor.is_quantized:
        raise _strange(f"{shown_name} is quantized.", DENSE, source)
    if tensor.is_complex():
        raise _strange(f"{shown_name} holds {tensor.dtype}; floats are needed.", None, source)
    if not tensor.is_floating_point() and tensor.dtype not in _INTEGERS:
        message = f"{shown_name} holds {tensor.dtype}; floats are needed, or int64 for counters."
        raise _strange(message, as_float, source)
    if tensor.numel() == 0:
        raise _strange(
            f"{shown_name} has no numbers: its shape is {list(tensor.shape)}.", f"del {entry}", source
        )
    if tensor.dim() > safetensors_layout.MAX_DIMS:
        raise _strange(
            f"{shown_name} has {tensor.dim()} dimensions; the limit is {safetensors_layout.MAX_DIMS}.",
            None,
            source,
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise _strange(
            f"{shown_name} shows the same numbers many times.", f"{entry} = {entry}.clone()", source
        )


def _canonical(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.detach().to(torch.int64).contiguous()
    numbers = tensor.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(numbers).all()):
        raise refuse(
            ErrorCode.NON_FINITE_WEIGHTS,
            f"{printable(name)} holds NaN or infinite numbers (as float32).",
            "Upload a checkpoint from before the training diverged.",
        )
    return numbers


def _strange(message: str, statement: str | None, source: ClientFile) -> TeacherError:
    """Refuse a tensor; `statement` turns it into one that is accepted."""
    line = source.edited(statement) if statement else None
    hint = (
        f"{WRITES} {line}"
        if line
        else "No known network has such a tensor; leave it out if it is not needed."
    )
    return refuse(ErrorCode.UNSUPPORTED_TENSOR, message, hint)
