"""Finds the functions that a pickle would call, from its opcodes and without running any.

This is not the guard: torch's own list under `weights_only`, in the jail, is. The list here is shorter, so
functions that torch allows and no state dict needs are never called (`_codecs.encode` can keep a machine busy
for a minute). It also gives the client a message that fits the file.
"""

import pickletools
import re
import sys
from collections.abc import Sequence
from typing import BinaryIO

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks.client_file import ClientFile, subscripts
from nayer_core.uploads.pickle_outline import Outline, read_outline
from nayer_core.uploads.refusals import DENSE, SAVE_HINT, WRITES, printable, refuse

MAX_OPCODES = 2_000_000  # a state dict of 20,000 tensors has 700,000

_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.device",
    "builtins.set",
    "__builtin__.set",  # what pickle protocol 2 calls it
    *(f"torch.{dtype}" for dtype in _DTYPES),
    *(f"torch.{storage}Storage" for storage in _STORAGES),
}
# Tensors that are sparse, quantized, nested, complex, without data, ...
_OF_TENSORS = re.compile(
    r"torch\._(utils|tensor)\._rebuild\w+|torch\.serialization\._get_layout|torch\.storage\.\w+Storage"
    r"|torch\.(\w+(Storage|Tensor)|Tensor|complex\w+|float\w+|u?q?u?int\w+|bits\w+|per_\w+)"
    r"|torch\.(cuda|sparse)\.\w+"
)
# Types that training code saves beside the weights, and functions that pickle needs for them. Other names of
# the standard library, of NumPy and of torch count as harmful code.
_HARMLESS = re.compile(
    r"argparse\.Namespace|collections\.[A-Za-z]+|datetime\.\w+|pathlib\.\w+Path|functools\.partial"
    r"|decimal\.Decimal|uuid\.UUID|(copyreg|copy_reg|_codecs)\.\w+"
    r"|torch\.((nn|optim)\..+|torch_version\.TorchVersion|_C\._nn\.\w+)"
    r"|(builtins|__builtin__)\.(list|dict|set|frozenset|slice|x?range|complex|object)"
    r"|numpy\.(_?core\.(multiarray|numeric)\.\w+|random\..+|dtype|ndarray|(bool|u?int|float|complex|str)\w*)"
)
_SENSITIVE_PACKAGES = {*sys.stdlib_module_names, "__builtin__", "exceptions", "numpy", "torch"}
_DO_NOT_LOAD = "Do not load this file: it holds code. Ask whoever made it for a safetensors file."
_IF_TRUSTED = "If you trust the file, run this line where it was trained, and upload what it writes:"
# Opcodes whose argument is the name of something to import.
_IMPORTS = {"GLOBAL", "INST"}
_IMPORTS_FROM_STACK = {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}


def require_tensors_only(file: BinaryIO) -> None:
    """Read one pickle to its end and refuse it if it imports more than tensors need.

    Args:
        file: at the pickle's first byte; afterwards after its last byte.

    Raises:
        TeacherError: it is a whole network, has unusual tensors or code, or is damaged.
    """
    start = file.tell()
    imports: set[str] = set()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MAX_OPCODES:
                raise refuse(
                    ErrorCode.UNSAFE_CHECKPOINT, f"The teacher file has more than {MAX_OPCODES} instructions."
                )
            if opcode.name in _IMPORTS:
                imports.add(str(argument).replace(" ", "."))
            elif opcode.name in _IMPORTS_FROM_STACK:
                raise refuse(
                    ErrorCode.UNSAFE_CHECKPOINT,
                    "The teacher file is pickled with a protocol above 3, which makes names while it loads.",
                    f"{SAVE_HINT} - without pickle_protocol.",
                )
    except TeacherError:
        raise
    except Exception as error:
        # genops documents ValueError alone, but raises any error of its argument readers.
        raise refuse(
            ErrorCode.DAMAGED_FILE,
            "The teacher file's list of tensors is damaged or incomplete.",
            "Upload it again; if that does not help, save it again.",
        ) from error
    strange = sorted(imports - _ALLOWED)
    if strange:
        file.seek(start)
        raise _refusal(strange, read_outline(file))


def _refusal(strange: Sequence[str], outline: Outline) -> TeacherError:
    names = ", ".join(printable(name) for name in strange[:3])
    is_code = any(map(_may_harm, strange))
    has_modules = any(name.startswith(("torch.nn.modules.", "torch.nn.parallel.")) for name in strange)
    if has_modules and outline.weights is None:
        return refuse(
            ErrorCode.PICKLED_MODULE,
            "The teacher file is a whole pickled network; loading it would run code from the file.",
            _DO_NOT_LOAD if is_code else _whole_network_hint(outline),
        )
    if any(name.startswith("__torch__.") for name in strange):
        return torchscript()
    if all(_OF_TENSORS.fullmatch(name) for name in strange):
        return refuse(
            ErrorCode.UNSUPPORTED_TENSOR,
            f"The teacher file holds tensors that are not plain dense ones (it needs {names}).",
            "Networks with complex weights are not taken." if "omplex" in names else _dense_hint(outline),
        )
    if is_code:
        return refuse(
            ErrorCode.UNSAFE_CHECKPOINT,
            f"The teacher file wants to use {names} when it is loaded, which no state dict needs.",
            _DO_NOT_LOAD,
        )
    line = None if outline.weights is None else ClientFile(keys=outline.weights, needs_trust=True).edited()
    return refuse(
        ErrorCode.UNSAFE_CHECKPOINT,
        f"The teacher file holds more than tensors: it needs {names} to be loaded.",
        f"{_IF_TRUSTED} {line}" if line else SAVE_HINT,
    )


def _may_harm(name: str) -> bool:
    return (
        name.partition(".")[0] in _SENSITIVE_PACKAGES
        and not _HARMLESS.fullmatch(name)
        and not _OF_TENSORS.fullmatch(name)
    )


def _whole_network_hint(outline: Outline) -> str:
    if outline.network is None:
        return SAVE_HINT
    load = f'torch.load("teacher.pt", map_location="cpu", weights_only=False){subscripts(outline.network)}'
    return f'{_IF_TRUSTED} import torch; torch.save({load}.state_dict(), "new_teacher.pt")'


def _dense_hint(outline: Outline) -> str:
    line = None if outline.weights is None else ClientFile(keys=outline.weights).edited(DENSE)
    return f"{WRITES} {line}" if line else SAVE_HINT


def torchscript() -> TeacherError:
    """Refuse a TorchScript archive, which is a program."""
    return refuse(
        ErrorCode.TORCHSCRIPT,
        "The teacher file is a TorchScript program; only weights are accepted.",
        'Upload what this line writes: torch.save(torch.jit.load("teacher.pt").state_dict(), "weights.pt")',
    )
