"""The optional uploads beside a teacher: images for evaluation, and label embeddings.

Both are read in the jail, which returns safetensors.
"""

import functools
import math
import os
import tempfile
import zipfile
from io import BufferedReader
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, UploadError
from nayer_core.uploads import safetensors_layout, zip_archive

MAX_EMBEDDING_DIM = 8192  # the widest text encoders have half of that; the noisy layer grows with it
MAX_EVALUATION_BYTES = 1 << 30  # unpacked: 350,000 images of 32 x 32, 7,000 of 224 x 224
_MEMBERS = ("images.npy", "labels.npy")
_MAX_NPY_HEADER_BYTES = 10_000
_EVALUATION_HINT = (
    "Write it with numpy.savez(file, images=images, labels=labels): "
    "images uint8 (N, H, W, C), labels int64 (N,)."
)
_EMBEDDINGS_HINT = (
    f"Write one finite float tensor of shape (classes, 2 to {MAX_EMBEDDING_DIM} dimensions) with safetensors."
)


def read_evaluation(file: BinaryIO, input_size: tuple[int, int, int], num_classes: int) -> dict[str, Tensor]:
    """Read an .npz of images and labels.

    Args:
        file: open for reading.
        input_size: (channels, height, width) that the images must have.
        num_classes: labels must be below it.

    Returns:
        images: (N, H, W, C) uint8; labels: (N,) int64.

    Raises:
        UploadError: `evaluation_invalid`.
    """
    size = os.fstat(file.fileno()).st_size
    rules = zip_archive.ArchiveRules(deflated=True, max_bytes=MAX_EVALUATION_BYTES)
    try:
        archive = zip_archive.open_archive(file, size)
        zip_archive.check_structure(archive, file, rules)
        missing = [name for name in _MEMBERS if name not in archive.namelist()]
        if missing:
            raise bad_evaluation(f"has no array named {missing[0].removesuffix('.npy')}")
        images, labels = (_read_array(archive, name) for name in _MEMBERS)
    except zip_archive.BadArchiveError as error:
        raise bad_evaluation(str(error)) from error
    if images.ndim == 3:  # gray images without an axis of channels
        images = images[..., np.newaxis]
    channels, height, width = input_size
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise bad_evaluation(
            f"has images {images.dtype} {images.shape}; uint8 (N, {height}, {width}, {channels}) is needed"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or not len(labels):
        raise bad_evaluation(
            f"has labels {labels.dtype} {labels.shape} for {len(images)} images; integers, one an image"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        raise bad_evaluation(f"has labels {lowest} to {highest}; there are {num_classes} classes, from 0")
    return {
        "images": torch.from_numpy(np.ascontiguousarray(images)),
        "labels": torch.from_numpy(labels.astype(np.int64)),
    }


def read_embeddings(file: BufferedReader, num_classes: int) -> dict[str, Tensor]:
    """Read a safetensors file of one float tensor, one row a class.

    Returns:
        `lte`: the label embeddings, (K, dim) float32.

    Raises:
        UploadError: `embeddings_invalid`.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        tensors = safetensors_layout.read_tensors(file, size)
    except safetensors_layout.BadLayoutError as error:
        raise bad_embeddings(str(error)) from error
    if len(tensors) != 1:
        raise bad_embeddings(f"holds {len(tensors)} tensors; one is needed")
    (vectors,) = tensors.values()
    if (
        not vectors.is_floating_point()
        or vectors.dim() != 2
        or len(vectors) != num_classes
        or vectors.shape[1] < 2
    ):
        raise bad_embeddings(
            f"holds {vectors.dtype} of shape {tuple(vectors.shape)}; there are {num_classes} classes"
        )
    if vectors.shape[1] > MAX_EMBEDDING_DIM:
        raise bad_embeddings(
            f"holds vectors of {vectors.shape[1]} dimensions; {MAX_EMBEDDING_DIM} is the limit"
        )
    vectors = vectors.to(torch.float32)
    if not bool(torch.isfinite(vectors).all()):
        raise bad_embeddings("holds NaN or infinite numbers")
    return {"lte": vectors}


@functools.cache
def warm_up() -> None:
    """Load, once and before the jail, the code that reading in the jail would import lazily."""
    with tempfile.TemporaryFile() as file:
        images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int64)
        np.savez_compressed(file, images=images, labels=labels)
        read_evaluation(file, (1, 8, 8), 2)


def bad_evaluation(problem: str) -> UploadError:
    """Build an error about the evaluation set; `problem` continues "the evaluation set"."""
    return UploadError(ErrorCode.EVALUATION_INVALID, f"The evaluation set {problem}.", _EVALUATION_HINT)


def bad_embeddings(problem: str, hint: str = _EMBEDDINGS_HINT) -> UploadError:
    """Build an error about the embeddings; `problem` continues "the embeddings file"."""
    return UploadError(ErrorCode.EMBEDDINGS_INVALID, f"The embeddings file {problem}.", hint)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one array; its header must account for every byte before memory is allocated."""
    member = archive.getinfo(name)
    try:
        with archive.open(member) as contents:
            version = np.lib.format.read_magic(contents)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, column_major, dtype = read_header(contents, max_header_size=_MAX_NPY_HEADER_BYTES)
            numbers = math.prod(shape)
            if dtype.hasobject or dtype.itemsize * numbers != member.file_size - contents.tell():
                raise bad_evaluation(f"has an array {name} whose header and size disagree")
            # Reading to the end makes zipfile compare the checksum; torch needs writable memory.
            array = np.frombuffer(bytearray(contents.read()), dtype=dtype, count=numbers)
    except (UploadError, MemoryError):
        raise
    except Exception as error:
        # numpy and zipfile raise any error for a damaged array.
        raise bad_evaluation(f"has an array {name} that cannot be read") from error
    return array.reshape(shape, order="F" if column_major else "C")
