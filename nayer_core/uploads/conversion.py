"""Converts uploads to safetensors: each reader of a stranger's file runs in the jail."""

import functools
import warnings
from collections.abc import Callable, Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, NayerError, TeacherError, UploadError
from nayer_core.contract.spec import TeacherWeights
from nayer_core.uploads import side_files, teacher_file
from nayer_core.uploads.confinement import ParseLimits
from nayer_core.uploads.jail import ParseKilledError, parse_in_jail
from nayer_core.uploads.refusals import refuse
from nayer_core.uploads.safetensors_layout import BadLayoutError, read_tensors, write_tensors
from nayer_core.uploads.teacher_facts import facts_of, with_tensors
from nayer_core.uploads.teacher_file import TeacherFile

MEMORY_BYTES = 1 << 30  # in addition to three times the file: the file, its float32 copy, one tensor
CPU_SECONDS, CPU_SECONDS_PER_GIB = 8, 20  # a sound file takes less than 1, and 5 per GiB
_WALL_SECONDS_PER_CPU_SECOND = 3  # other programs use the machine too
_MAX_MESSAGE_CHARS = 1000

# Reads an upload; returns its tensors and facts about it.
Reader = Callable[[BufferedReader], tuple[Mapping[str, Tensor], dict[str, Any]]]


def convert_teacher(upload: Path, output: Path, weights: TeacherWeights = "auto") -> TeacherFile:
    """Read an untrusted teacher.

    Args:
        upload: the stranger's file.
        output: a safetensors file to write; the jail's result.
        weights: which set is wanted, where the file has trained and averaged weights.

    Returns:
        Its state dict (float32 and int64, finite), and what else is in the file.

    Raises:
        TeacherError: the file cannot be used; `teacher_rejected` if its reader crashed or was killed.
    """

    def killed(problem: str) -> TeacherError:
        return refuse(ErrorCode.TEACHER_REJECTED, f"The teacher file {problem}.")

    def read(source: BufferedReader) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        file = teacher_file.read_teacher(source, weights)
        return file.tensors, facts_of(file)

    teacher_file.warm_up()
    size = upload.stat().st_size
    limits = _limits(size, MEMORY_BYTES + 3 * size, 2 * size)
    tensors, facts = _convert(read, upload, output, limits, killed)
    try:
        return with_tensors(facts, tensors)
    except ValueError as error:
        raise killed("broke the reader") from error


def convert_evaluation(
    upload: Path, output: Path, *, input_size: tuple[int, int, int], num_classes: int
) -> None:
    """Turn an untrusted .npz into a safetensors file of `images` and `labels`.

    Raises:
        UploadError: `evaluation_invalid`.
    """

    def read(source: BufferedReader) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        return side_files.read_evaluation(source, input_size, num_classes), {}

    side_files.warm_up()
    most = side_files.MAX_EVALUATION_BYTES
    limits = _limits(upload.stat().st_size, MEMORY_BYTES + 3 * most, most)
    _convert(read, upload, output, limits, side_files.bad_evaluation)


def convert_embeddings(upload: Path, output: Path, *, num_classes: int) -> int:
    """Turn untrusted embeddings into a safetensors file of `lte`, (K, dim) float32; return dim.

    Raises:
        UploadError: `embeddings_invalid`.
    """

    def read(source: BufferedReader) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        return side_files.read_embeddings(source, num_classes), {}

    teacher_file.warm_up()
    size = upload.stat().st_size
    limits = _limits(size, MEMORY_BYTES + 3 * size, 2 * size)
    tensors, _ = _convert(read, upload, output, limits, side_files.bad_embeddings)
    return tensors["lte"].shape[1]


def _limits(size: int, memory_bytes: int, output_bytes: int) -> ParseLimits:
    return ParseLimits(
        memory_bytes=memory_bytes,
        cpu_seconds=CPU_SECONDS + CPU_SECONDS_PER_GIB * (size >> 20) // 1024,
        output_bytes=output_bytes + (8 << 20),  # the header of 20,000 long names
    )


def _convert(
    read: Reader,
    upload: Path,
    output: Path,
    limits: ParseLimits,
    killed: Callable[[str], TeacherError | UploadError],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Run `read` in the jail and read its output, which is checked like any upload."""
    try:
        facts = parse_in_jail(
            functools.partial(_read_and_write, read),
            upload,
            output,
            limits,
            wall_seconds=_WALL_SECONDS_PER_CPU_SECOND * limits.cpu_seconds,
        )
        if "code" in facts:
            raise type(killed(""))(
                ErrorCode(facts["code"]),
                *(str(facts[part])[:_MAX_MESSAGE_CHARS] for part in ("message", "hint")),
            )
        with output.open("rb") as file:
            return read_tensors(file, output.stat().st_size), facts
    except ParseKilledError as error:
        raise killed(str(error)) from error
    except (BadLayoutError, KeyError, ValueError) as error:
        raise killed("broke the reader") from error


def _read_and_write(read: Reader, source: BufferedReader, sink: BufferedWriter) -> dict[str, Any]:
    """Run in the jail: return facts, or the fields of a refusal."""
    torch.set_num_threads(1)  # none can be started
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about old files: nobody reads them here
            tensors, facts = read(source)
            write_tensors(sink, tensors)
    except NayerError as error:
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return dict(facts)
