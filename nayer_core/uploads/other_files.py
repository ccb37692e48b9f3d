"""Refusals of files that hold no teacher, or hold it in a form that is not accepted."""

from collections.abc import Sequence

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads.refusals import SAVE_HINT, SAVE_STATE_DICT, printable, refuse

_PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_BEFORE_TEXT = b"\xef\xbb\xbf \t\r\n"  # a byte order mark, and blanks
_UNPACK = "Unpack it and upload the file inside."
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt", ".bin", ".pkl")
_MOST_LISTED = 3

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_ONLY_TORCH = "Only networks of PyTorch are taken: save the weights of one."
_OTHER_NETWORKS = {
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes it", _ONLY_TORCH),
    b"GGUF": ("a GGUF file", _ONLY_TORCH),
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
}

# Members of the archives of other frameworks -> what the archive is.
_OTHER_ARCHIVES = {
    "model.weights.h5": "a Keras network",
    "saved_model.pb": "a TensorFlow SavedModel",
    "keras_metadata.pb": "a TensorFlow SavedModel",
    "model.mlmodel": "a Core ML package",
}


def other_file(head: bytes) -> TeacherError | None:
    """Refuse a file by its first bytes; None if its kind is unknown."""
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            message = f"The teacher file is compressed with {name}."
            return refuse(ErrorCode.UNSUPPORTED_FORMAT, message, _UNPACK)
    for magic, (name, hint) in _OTHER_NETWORKS.items():
        if head.startswith(magic):
            return refuse(ErrorCode.UNSUPPORTED_FORMAT, f"The teacher file is {name}.", hint)
    if head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return refuse(ErrorCode.UNSUPPORTED_FORMAT, "The teacher file is a tar archive.", _UNPACK)
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 32 and head[2] in b"\x12\x1a\x22\x3a":
        return refuse(  # protobuf: field 1 is ir_version, then producer, domain or graph
            ErrorCode.UNSUPPORTED_FORMAT,
            "The teacher file is an ONNX graph.",
            f"Upload the weights of the PyTorch network it was exported from: {SAVE_STATE_DICT}",
        )
    if head[:1] == b"\x80" and head[1:2] in _PICKLE_PROTOCOLS:
        return refuse(
            ErrorCode.UNSUPPORTED_FORMAT,
            "The teacher file is a bare pickle, which may hold code.",
            "If you trust the file, and it holds a state dict, run this line, and upload what it writes:"
            ' import pickle, torch; torch.save(pickle.load(open("teacher.pkl", "rb")), "teacher.pt")',
        )
    for magic, name in _NO_NETWORK.items():
        if head.startswith(magic):
            return refuse(ErrorCode.NOT_A_CHECKPOINT, f"The teacher file is {name}.")
    return _text(head.lstrip(_BEFORE_TEXT))


def other_archive(members: Sequence[str]) -> TeacherError:
    """Refuse a zip archive that torch.save did not write, and name its kind."""
    names = [member.rpartition("/")[2] for member in members]
    kind = next((kind for name, kind in _OTHER_ARCHIVES.items() if name in names), None)
    if kind is not None:
        return refuse(ErrorCode.UNSUPPORTED_FORMAT, f"The teacher file is {kind}.", _ONLY_TORCH)
    weights = [member for member in members if member.endswith(_WEIGHTS_SUFFIXES)]
    if any(name == "data.pkl" for name in names):  # an archive of torch.save, in parts
        weights = []
    if weights:
        names_of_weights = ", ".join(map(printable, weights[:_MOST_LISTED]))
        which = "that file" if len(weights) == 1 else "the one with the teacher's weights"
        return refuse(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"The teacher file is a zip archive around {names_of_weights}.",
            f"Unpack it and upload {which}.",
        )
    return refuse(
        ErrorCode.NOT_A_CHECKPOINT,
        f"The teacher file is a zip archive of something else; it begins with {printable(members[0])}.",
    )


def _text(head: bytes) -> TeacherError | None:
    """Refuse a text that was saved or downloaded in place of a network; None if it is no known text."""
    if head.startswith(b"<"):
        message = "The teacher file is a web page or XML document."
        hint = (
            "Download the file again: a page was saved in its place, as happens if a server asks for a"
            " login or warns of a large file."
        )
    elif head.startswith(b"version https://git-lfs"):
        message = "The teacher file is a Git LFS pointer, not the file it points to."
        hint = "Fetch the file itself with `git lfs pull`, and upload that."
    elif head.startswith(b"{") and b'"weight_map"' in head:
        message = "The teacher file is an index of shards, which holds no weights."
        hint = f"Join the shards that it names: in their folder, upload what this line writes: {_join(head)}"
    elif head.startswith((b"{", b"[")):
        message = "The teacher file is a JSON document."
        hint = "Upload the file of weights that belongs to it, e.g. model.safetensors."
    else:
        return None
    return refuse(ErrorCode.NOT_A_CHECKPOINT, message, hint)


def _join(head: bytes) -> str:
    if b".safetensors" in head:
        return (
            "import json; from safetensors.torch import load_file, save_file;"
            ' files = set(json.load(open("model.safetensors.index.json"))["weight_map"].values());'
            ' save_file({k: v for f in files for k, v in load_file(f).items()}, "teacher.safetensors")'
        )
    return (
        "import json, torch;"
        ' files = set(json.load(open("pytorch_model.bin.index.json"))["weight_map"].values());'
        ' sd = {k: v for f in files for k, v in torch.load(f, map_location="cpu").items()};'
        ' torch.save(sd, "teacher.pt")'
    )
