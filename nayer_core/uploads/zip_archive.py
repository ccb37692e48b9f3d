"""Strict checks of a zip archive, made before any less strict reader opens it.

torch's reader ignores checksums, unpacks compressed members and lets members share bytes: 17 KB can become
257 MB. Here every byte of the file has exactly one meaning, or the file is refused.
"""

import encodings.cp437  # noqa: F401 - zipfile's; the jail can import nothing
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

MAX_MEMBERS = 20_100  # the most tensors of a teacher, and what torch adds
_MAX_NAME_BYTES = 1024
_END_OF_ARCHIVE = struct.Struct("<4s4H2LH")
_COUNT_IS_ELSEWHERE = 0xFFFF  # in the zip64 record
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_GAP_BYTES = 24  # a data descriptor, zip64, between two members
_UTF8, _DATA_DESCRIPTOR = 0x800, 0x008
_CHUNK = 1 << 20


class BadArchiveError(Exception):
    """The archive is not sound; the message continues a sentence that begins with "the archive"."""


class CutShortError(BadArchiveError):
    """The end of the archive is missing."""


class ChecksumError(BadArchiveError):
    """Bytes of the archive differ from its checksums."""


@dataclass(frozen=True)
class ArchiveRules:
    """The properties that an archive may have.

    Args:
        deflated: whether members may be compressed.
        max_bytes: the sum of the members' sizes, unpacked.
    """

    deflated: bool
    max_bytes: int


def open_archive(file: BinaryIO, size: int) -> zipfile.ZipFile:
    """Open an archive by its directory alone; only its names may be used before the checks.

    Args:
        file: open for reading.
        size: of the file, in bytes.

    Raises:
        BadArchiveError: it is cut short, or its directory cannot be read.
    """
    file.seek(max(0, size - _END_OF_ARCHIVE.size))
    end = file.read(_END_OF_ARCHIVE.size)
    if len(end) < _END_OF_ARCHIVE.size or not end.startswith(b"PK\x05\x06"):
        raise CutShortError("has no end: the file is incomplete, or something was added to it")
    count = _END_OF_ARCHIVE.unpack(end)[4]
    if count != _COUNT_IS_ELSEWHERE and not 1 <= count <= MAX_MEMBERS:
        raise BadArchiveError(f"must have 1 to {MAX_MEMBERS} members")
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError) as error:
        raise BadArchiveError("has a directory that cannot be read") from error


def check_structure(archive: zipfile.ZipFile, file: BinaryIO, rules: ArchiveRules) -> None:
    """Check that every byte of `file` has one meaning; contents are left to `check_sums`.

    Raises:
        BadArchiveError: it has strange members, or bytes with two meanings or none.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or len({member.filename for member in members}) != len(members):
        raise BadArchiveError(f"has two members of one name, or more than {MAX_MEMBERS}")
    for member in members:
        _check_member(member, rules)
    if sum(member.file_size for member in members) > rules.max_bytes:
        raise BadArchiveError(f"unpacks to more than {rules.max_bytes} bytes")
    _check_layout(file, members, archive.start_dir)


def check_sums(archive: zipfile.ZipFile) -> None:
    """Read every member and compare its checksum.

    Raises:
        ChecksumError: one differs.
    """
    try:
        for member in archive.infolist():
            with archive.open(member) as contents:
                while contents.read(_CHUNK):
                    pass
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ChecksumError("does not match its checksums") from error


def _check_member(member: zipfile.ZipInfo, rules: ArchiveRules) -> None:
    allowed = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if rules.deflated else (zipfile.ZIP_STORED,)
    if member.compress_type not in allowed:
        raise BadArchiveError("has compressed members")
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise BadArchiveError("has a member of two sizes")
    if member.flag_bits & ~(_UTF8 | _DATA_DESCRIPTOR):
        raise BadArchiveError("has members that are encrypted or patched")
    name = member.orig_filename
    parts = name.split("/")
    if len(name.encode()) > _MAX_NAME_BYTES or ".." in parts or "" in parts or "\\" in name or "\0" in name:
        raise BadArchiveError("has a member whose name is no plain path")


def _check_layout(file: BinaryIO, members: list[zipfile.ZipInfo], directory: int) -> None:
    """Check that members follow each other without gaps, and that local headers match the directory."""
    end_of_last = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if not end_of_last <= member.header_offset <= end_of_last + (_MAX_GAP_BYTES if end_of_last else 0):
            raise BadArchiveError("has members that overlap, or bytes that belong to none")
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise CutShortError("ends inside a member")
        magic, _, flags, method, _, _, _, _, _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        name = file.read(name_bytes).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        if magic != b"PK\x03\x04" or method != member.compress_type or name != member.orig_filename:
            raise BadArchiveError("has a member that its directory describes differently")
        end_of_last = file.tell() + extra_bytes + member.compress_size
    if not end_of_last <= directory <= end_of_last + _MAX_GAP_BYTES:
        raise BadArchiveError("has members that overlap its directory, or bytes that belong to none")
