"""Which tensors are taken: dense finite floats, and counters. Others are errors if the network needs them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads import safetensors_layout
from nayer_core.uploads.client_file import ClientFile, quoted
from nayer_core.uploads.pickle_names import is_of_tensors
from nayer_core.uploads.pickled_values import PickledObject, PickledTensor
from nayer_core.uploads.refusals import DENSE, IF_TRUSTED, SAVE_HINT, printable, refuse
from nayer_core.uploads.stored_tensors import dtype_of

_INTEGERS = (torch.int64, torch.int32)
_CLONED = "sd = {k: v.clone() for k, v in sd.items() if isinstance(v, torch.Tensor)}"


@dataclass(frozen=True)
class OddTensor:
    """A tensor that was not read.

    Attributes:
        error: what is refused if the network needs it.
        shape: None if it is not known.
    """

    error: TeacherError
    shape: tuple[int, ...] | None


def check_names(names: Mapping[str, object]) -> None:
    """Refuse a state dict with too many tensors, or with names that no network has.

    Raises:
        TeacherError: `unsupported_tensor` or `not_a_checkpoint`.
    """
    if len(names) > safetensors_layout.MAX_TENSORS:
        raise refuse(
            ErrorCode.UNSUPPORTED_TENSOR,
            f"The teacher has {len(names)} tensors; the limit is {safetensors_layout.MAX_TENSORS}.",
        )
    for name in names:
        if not 1 <= len(name) <= safetensors_layout.MAX_NAME_CHARS or not name.isprintable():
            raise refuse(
                ErrorCode.NOT_A_CHECKPOINT, f"{printable(name)} is no name of a tensor in a state dict."
            )


def check_size(shown_bytes: int, file_bytes: int, source: ClientFile) -> None:
    """Refuse tensors that show much more than the file holds.

    Raises:
        TeacherError: `unsupported_tensor`.
    """
    if shown_bytes > 2 * file_bytes:
        message = f"The teacher's tensors take more than twice the {file_bytes} bytes of its file."
        raise _strange(message, _CLONED, source)


def oddity(name: str, value: PickledTensor | PickledObject, source: ClientFile) -> TeacherError | None:
    """Say why a tensor of a pickle is not taken; None if it is, as far as its description tells."""
    if isinstance(value, PickledObject):
        if "meta" in value.name:
            return refuse(ErrorCode.UNSUPPORTED_TENSOR, f"{printable(name)} is a tensor without data.")
        if not is_of_tensors(value.name):
            return _of_unknown_code(name, value.name, source)
        return _strange(
            f"{printable(name)} is not a dense tensor: it is made by {printable(value.name)}.", DENSE, source
        )
    dtype = dtype_of(value.storage)
    if dtype is None:
        return _strange(f"{printable(name)} is quantized, or of an unknown type.", DENSE, source)
    error = oddity_of_numbers(name, dtype, value.size, source)
    if error is None and math.prod(value.size) > value.storage.length:
        entry = f"sd[{quoted(name)}]"
        message = f"{printable(name)} shows the same numbers many times."
        error = _strange(message, f"{entry} = {entry}.clone()", source)
    return error


def oddity_of_numbers(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], source: ClientFile
) -> TeacherError | None:
    """Say why numbers of this type and shape are not taken; None if they are."""
    shown_name, entry = printable(name), f"sd[{quoted(name)}]"
    if dtype.is_complex:
        return _strange(f"{shown_name} holds {dtype}; floats are needed.", None, source)
    if dtype not in _INTEGERS and (not dtype.is_floating_point or dtype.itemsize < 2):
        message = f"{shown_name} holds {dtype}; floats are needed, or int64 for counters."
        return _strange(message, f"{entry} = {entry}.float()", source)
    if 0 in shape:
        message = f"{shown_name} has no numbers: its shape is {list(shape)[: safetensors_layout.MAX_DIMS]}."
        return _strange(message, f"del {entry}", source)
    if len(shape) > safetensors_layout.MAX_DIMS:
        limit = safetensors_layout.MAX_DIMS
        return _strange(f"{shown_name} has {len(shape)} dimensions; the limit is {limit}.", None, source)
    return None


def canonical_numbers(name: str, tensor: Tensor) -> Tensor | TeacherError:
    """Return a tensor as float32 or int64, contiguous; the error if it is not finite."""
    if not tensor.is_floating_point():
        return tensor.to(torch.int64).contiguous()
    numbers = tensor.to(torch.float32).contiguous()
    if bool(torch.isfinite(numbers).all()):
        return numbers
    return refuse(
        ErrorCode.NON_FINITE_WEIGHTS,
        f"{printable(name)} holds NaN or infinite numbers (as float32).",
        "Upload a checkpoint from before the training diverged.",
    )


def _of_unknown_code(name: str, maker: str, source: ClientFile) -> TeacherError:
    line = source.edited("sd = {k: torch.as_tensor(v) for k, v in sd.items() if v is not None}")
    return refuse(
        ErrorCode.UNSAFE_CHECKPOINT,
        f"{printable(name)} is made by {printable(maker)}, which only code of the file can run.",
        f"{IF_TRUSTED} {line}" if line else SAVE_HINT,
    )


def _strange(message: str, statement: str | None, source: ClientFile) -> TeacherError:
    """Refuse a tensor; `statement` turns it into one that is accepted."""
    line = source.edited(statement) if statement else None
    hint = (
        f"{source.introduction} {line}"
        if line
        else "No known network has such a tensor; leave it out if it is not needed."
    )
    return refuse(ErrorCode.UNSUPPORTED_TENSOR, message, hint)
