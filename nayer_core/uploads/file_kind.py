"""What kind of file is this, by its bytes; its name is never believed."""

from enum import StrEnum
from typing import BinaryIO

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads.refusals import SAVE_HINT, SAVE_STATE_DICT, refuse


class FileKind(StrEnum):
    """The three layouts that a teacher may come in."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch_zip"
    TORCH_LEGACY = "torch_legacy"  # before torch 1.6: pickles, then raw storages


ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of 0x1950a86a20f9469cfc6c
_HEAD_BYTES = 512
_PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_OTHER_NETWORKS = {
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes it", "Save the weights of a PyTorch network."),
    b"GGUF": ("a GGUF file", "Save the weights of a PyTorch network."),
    b"\x93NUMPY": ("a NumPy array", SAVE_HINT),
}
_NO_NETWORK = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"\x7fELF": "an executable program",
    b"MZ": "an executable program",
    b"#!": "a script",
    b"<": "a web page or XML document; perhaps the download of the file went wrong",
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to",
    b"{": "a JSON document",
}


def identify(file: BinaryIO, size: int) -> FileKind:
    """Tell the layout of a teacher by its first bytes.

    Args:
        file: open for reading; its position is moved.
        size: of the file, in bytes.

    Raises:
        TeacherError: it is none of the three; the message says what it seems to be.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if not head:
        raise refuse(ErrorCode.TRUNCATED_FILE, "The teacher file is empty.", "Upload it again.")
    if head[4:9] == b"\0\0\0\0{":  # a length below 4 GB may begin like anything else
        return FileKind.SAFETENSORS
    if head.startswith(ZIP_MAGIC):
        return FileKind.TORCH_ZIP
    if head.startswith(LEGACY_MAGIC):
        return FileKind.TORCH_LEGACY
    refusal = _refusal(head)
    if refusal is not None:
        raise refusal
    if len(head) > 8 and head[8:9] == b"{":
        return FileKind.SAFETENSORS
    raise refuse(
        ErrorCode.NOT_A_CHECKPOINT,
        f"The teacher file of {size} bytes begins like no file of weights that is known here.",
    )


def _refusal(head: bytes) -> TeacherError | None:
    """Say what a file is that begins with these bytes, if it is known and not accepted."""
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            return refuse(
                ErrorCode.UNSUPPORTED_FORMAT,
                f"The teacher file is compressed with {name}.",
                "Unpack it and upload the file inside.",
            )
    for magic, (name, hint) in _OTHER_NETWORKS.items():
        if head.startswith(magic):
            return refuse(ErrorCode.UNSUPPORTED_FORMAT, f"The teacher file is {name}.", hint)
    if head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return refuse(ErrorCode.UNSUPPORTED_FORMAT, "The teacher file is a tar archive.")
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 32 and head[2] in b"\x12\x1a\x22\x3a":
        return refuse(  # protobuf: field 1 is ir_version, then producer, domain or graph
            ErrorCode.UNSUPPORTED_FORMAT,
            "The teacher file is an ONNX graph.",
            f"Upload the weights of the PyTorch network it was exported from: {SAVE_STATE_DICT}",
        )
    if head[:1] == b"\x80" and head[1:2] in _PICKLE_PROTOCOLS:
        return refuse(ErrorCode.UNSUPPORTED_FORMAT, "The teacher file is a bare pickle, which may hold code.")
    for magic, name in _NO_NETWORK.items():
        if head.startswith(magic):
            return refuse(ErrorCode.NOT_A_CHECKPOINT, f"The teacher file is {name}.")
    return None
