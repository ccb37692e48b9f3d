"""Opens the two layouts of torch.save: what the pickle describes, and where the numbers are."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from typing import BinaryIO, cast

from nayer_core.contract.errors import ErrorCode
from nayer_core.uploads import zip_archive
from nayer_core.uploads.other_files import other_archive
from nayer_core.uploads.pickle_machine import read_pickle
from nayer_core.uploads.pickle_meaning import BadPickleError
from nayer_core.uploads.pickled_values import Pickle, PickledDict
from nayer_core.uploads.refusals import AGAIN, WRITES, printable, refuse, torchscript
from nayer_core.uploads.stored_tensors import ArchivedStorages, BadStorageError, LegacyStorages, Storages

_PICKLES_BEFORE_LEGACY_TENSORS = 2  # magic number, protocol; then system, tensors, names of storages
_LARGEST_EXPANSION = 4  # times; weights hardly compress
_FINDERS_FOLDER = "__MACOSX"
_PACK_AGAIN = (
    'import zipfile; old = zipfile.ZipFile("teacher.pt"); new = zipfile.ZipFile("new_teacher.pt", "w");'
    ' [new.writestr(n, old.read(n)) for n in old.namelist() if n[-1] != "/" and n[:8] != "__MACOSX"];'
    " new.close()"
)


@dataclass(frozen=True)
class TorchFile:
    """The content of a file of torch.save.

    Attributes:
        pickle: what it describes.
        storages: the numbers.
    """

    pickle: Pickle
    storages: Storages


def open_archive(file: BinaryIO, size: int) -> TorchFile:
    """Open the layout of today, a zip archive, after every check of it.

    Raises:
        TeacherError: it is another archive, is damaged, or is built to harm its reader.
    """
    rules = zip_archive.ArchiveRules(deflated=False, max_bytes=size)
    try:
        archive = zip_archive.open_archive(file, size)
        members = {member.partition("/")[2]: member for member in archive.namelist()}
        # Before the structure: TorchScript has compressed members, and deserves its own message.
        _check_purpose(archive.namelist(), members)
        _check_packing(archive, size)
        zip_archive.check_structure(archive, file, rules)
        zip_archive.check_sums(archive)
        with archive.open(members["data.pkl"]) as pickled:
            pickle = _read(io.BytesIO(pickled.read()))
    except zip_archive.CutShortError as error:
        raise refuse(ErrorCode.TRUNCATED_FILE, f"The teacher's archive {error}.", AGAIN) from error
    except zip_archive.ChecksumError as error:
        raise refuse(ErrorCode.DAMAGED_FILE, f"The teacher's archive {error}.", AGAIN) from error
    except zip_archive.BadArchiveError as error:
        raise refuse(
            ErrorCode.UNSAFE_CHECKPOINT, f"The teacher's archive {error}; torch.save writes none like it."
        ) from error
    return TorchFile(pickle, ArchivedStorages(archive, members))


def open_legacy(file: BufferedReader, size: int) -> TorchFile:
    """Open the layout before torch 1.6: pickles one after the other, then the storages.

    Raises:
        TeacherError: it is damaged, or is built to harm its reader.
    """
    file.seek(0)
    bounded = cast(BinaryIO, _BoundedFile(file, size))
    for _ in range(_PICKLES_BEFORE_LEGACY_TENSORS):
        _read_plain(bounded)
    system, pickle, keys = _read_plain(bounded), _read(bounded), _read_plain(bounded)
    is_swapped = isinstance(system, PickledDict) and system.entries.get("little_endian") is False
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise refuse(ErrorCode.DAMAGED_FILE, "The teacher file's list of storages is damaged.", AGAIN)
    try:
        storages = LegacyStorages(file, size, keys, pickle.storages, is_swapped=is_swapped)
    except BadStorageError as error:
        raise damaged(error) from error
    return TorchFile(pickle, storages)


def damaged(error: BadStorageError) -> Exception:
    """Refuse a file whose pickle and numbers disagree."""
    return refuse(ErrorCode.DAMAGED_FILE, f"The teacher file {error}.", AGAIN)


class _BoundedFile(io.RawIOBase):
    """A file from which a wrong length in a pickle reads no more than there is."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        most = self._size - self._file.tell()
        return self._file.read(most if size < 0 else min(size, most))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._file.readline(-1 if size is None else size)

    def tell(self) -> int:
        return self._file.tell()


def _read(file: BinaryIO) -> Pickle:
    try:
        return read_pickle(file)
    except BadPickleError as error:
        raise refuse(
            ErrorCode.UNSAFE_CHECKPOINT, f"The teacher file's pickle {error}; torch.save writes none like it."
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # pickletools raises any error of its argument readers, and a stack may be too short.
        raise refuse(
            ErrorCode.DAMAGED_FILE,
            "The teacher file's list of tensors is damaged or incomplete.",
            AGAIN,
        ) from error


def _read_plain(file: BinaryIO) -> object:
    """Read a pickle of plain values."""
    pickle = _read(file)
    if pickle.names:
        raise refuse(
            ErrorCode.UNSAFE_CHECKPOINT,
            f"The teacher file uses {printable(pickle.names[0])} where torch.save writes plain values.",
        )
    return pickle.root


def _check_purpose(members: list[str], names: Mapping[str, str]) -> None:
    """Refuse the other archives that torch and NumPy write, each with its own message."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise torchscript()
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
