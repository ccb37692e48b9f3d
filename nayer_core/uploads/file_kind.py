"""The layout of a file, by its bytes and never by its name."""

from enum import StrEnum
from typing import BinaryIO

from nayer_core.contract.errors import ErrorCode
from nayer_core.uploads.other_files import other_file
from nayer_core.uploads.refusals import refuse


class FileKind(StrEnum):
    """The three layouts that a teacher may come in."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch_zip"
    TORCH_LEGACY = "torch_legacy"  # before torch 1.6: pickles, then raw storages


ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of 0x1950a86a20f9469cfc6c
_HEAD_BYTES = 64 << 10  # a JSON document may show its kind late


def identify(file: BinaryIO, size: int) -> FileKind:
    """Identify the layout of a teacher by its first bytes.

    Args:
        file: open for reading; its position is moved.
        size: of the file, in bytes.

    Raises:
        TeacherError: it is none of the three; the message says what the file seems to be.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if not head:
        raise refuse(ErrorCode.TRUNCATED_FILE, "The teacher file is empty.", "Upload it again.")
    if head[4:9] == b"\0\0\0\0{":  # the length below 4 GB may look like any other magic number
        return FileKind.SAFETENSORS
    if head.startswith(ZIP_MAGIC):
        return FileKind.TORCH_ZIP
    if head.startswith(LEGACY_MAGIC):
        return FileKind.TORCH_LEGACY
    refusal = other_file(head)
    if refusal is not None:
        raise refusal
    if len(head) > 8 and head[8:9] == b"{":
        return FileKind.SAFETENSORS
    raise refuse(
        ErrorCode.NOT_A_CHECKPOINT,
        f"The teacher file of {size} bytes begins like no file of weights that is known here.",
    )
