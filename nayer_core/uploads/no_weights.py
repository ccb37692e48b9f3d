"""Refusals of files of torch.save in which no set of tensors can be taken, by what they hold instead."""

from collections.abc import Sequence

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads.client_file import ClientFile, subscripts
from nayer_core.uploads.pickle_names import is_of_tensors, is_of_torchscript, may_harm, of_objects
from nayer_core.uploads.pickled_values import Pickle, PickledDict, PickledObject, PickledTensor
from nayer_core.uploads.refusals import IF_TRUSTED, SAVE_HINT, printable, refuse, torchscript
from nayer_core.uploads.weight_sets import WeightSet, walk

_DO_NOT_LOAD = "Do not load this file: it holds code. Ask whoever made it for a safetensors file."
_WHOLE_NETWORK = "The teacher file is a whole pickled network; loading it would run code from the file."
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_MOST_NAMED = 3


def refuse_harmful(pickle: Pickle, sets: Sequence[WeightSet]) -> None:
    """Refuse a file that names code no training script needs: it was built to run where it is loaded.

    Raises:
        TeacherError: `torchscript`, `pickled_module` or `unsafe_checkpoint`.
    """
    if any(map(is_of_torchscript, pickle.names)):
        raise torchscript()
    harmful = [name for name in pickle.names if may_harm(name)]
    if not harmful:
        return
    if not sets and _network_keys(pickle) is not None:
        raise refuse(ErrorCode.PICKLED_MODULE, _WHOLE_NETWORK, _DO_NOT_LOAD)
    raise refuse(
        ErrorCode.UNSAFE_CHECKPOINT,
        f"The teacher file wants to use {_list(harmful)} when it is loaded, which no state dict needs.",
        _DO_NOT_LOAD,
    )


def error(pickle: Pickle) -> TeacherError:
    """Return the refusal of a harmless file without a set of named tensors."""
    keys = _network_keys(pickle)
    if keys is not None:
        load = f'torch.load("teacher.pt", map_location="cpu", weights_only=False){subscripts(keys)}'
        line = f'import torch; torch.save({load}.state_dict(), "new_teacher.pt")'
        return refuse(ErrorCode.PICKLED_MODULE, _WHOLE_NETWORK, f"{IF_TRUSTED} {line}")
    for keys, value in walk(pickle.root):
        refusal = _of_arrays(keys, value) or _of_object(keys, value)
        if refusal is not None:
            return refusal
    root = pickle.root
    if isinstance(root, PickledObject) and is_of_tensors(root.name):
        return refuse(ErrorCode.UNSUPPORTED_TENSOR, "The teacher file is one tensor, and no dense one.")
    objects = of_objects(pickle.names)
    beside = f" It holds objects of {_list(objects)}, which are not read." if objects else ""
    return refuse(ErrorCode.NOT_A_CHECKPOINT, f"The file holds no tensors with names.{beside}")


def _network_keys(pickle: Pickle) -> tuple[str, ...] | None:
    """The keys that lead to a whole network, () to the pickle itself; None if there is none."""
    return next(
        (keys for keys, value in walk(pickle.root) if isinstance(value, PickledObject) and value.is_network),
        None,
    )


def _of_arrays(keys: tuple[str, ...], value: PickledDict | PickledObject) -> TeacherError | None:
    """Refuse weights that are arrays of NumPy."""
    if not isinstance(value, PickledDict):
        return None
    arrays = [it for it in value.entries.values() if isinstance(it, PickledObject) and it.name in _ARRAYS]
    if len(arrays) < 2 or 2 * len(arrays) < len(value.entries):
        return None
    statement = 'sd = {k: torch.as_tensor(v) for k, v in sd.items() if hasattr(v, "dtype")}'
    line = ClientFile(keys=keys, needs_trust=True).edited(statement)
    return refuse(
        ErrorCode.UNSAFE_CHECKPOINT,
        "The teacher file's weights are arrays of NumPy, which only code of the file can make.",
        f"{IF_TRUSTED} {line}" if line else SAVE_HINT,
    )


def _of_object(keys: tuple[str, ...], value: PickledDict | PickledObject) -> TeacherError | None:
    """Refuse tensors that belong to an object which only code outside of torch can make."""
    if not isinstance(value, PickledObject) or not _holds_tensors(value):
        return None
    line = ClientFile(keys=keys, needs_trust=True).edited(
        "sd = {k: v for k, v in dict(sd).items() if isinstance(v, torch.Tensor)}"
    )
    return refuse(
        ErrorCode.UNSAFE_CHECKPOINT,
        f"The teacher file's tensors belong to an object of {printable(value.name)}, which only its own code"
        " can make, and that is never run here.",
        f"{IF_TRUSTED} {line}" if line else SAVE_HINT,
    )


def _holds_tensors(value: PickledObject) -> bool:
    dicts = [*value.parts, *(it for it in value.arguments if isinstance(it, PickledDict))]
    return any(isinstance(entry, PickledTensor) for part in dicts for entry in part.entries.values())


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
