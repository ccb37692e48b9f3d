"""Which functions would this pickle call? Read from its opcodes, without running any.

Not the guard: that is torch's own list under `weights_only`, in the jail. This one is shorter,
so that what torch allows and a state dict never needs is not even tried (`_codecs.encode` can
keep a machine busy for a minute), and it knows what to say to the one who uploaded the file.
"""

import pickletools
import re
from collections.abc import Iterable
from typing import BinaryIO

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads.refusals import SAVE_HINT, printable, refuse

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
# Opcodes whose argument is the name of something to import.
_IMPORTS = {"GLOBAL", "INST"}
_IMPORTS_FROM_STACK = {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}


def require_tensors_only(file: BinaryIO) -> None:
    """Read one pickle to its end and refuse it if it names more than tensors need.

    Args:
        file: at the pickle's first byte; left behind its last.

    Raises:
        TeacherError: it is a whole network, tensors of a strange kind, code, or damaged.
    """
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
        # genops documents ValueError alone and raises what its argument readers do.
        raise refuse(
            ErrorCode.DAMAGED_FILE,
            "The teacher file's list of tensors is damaged or incomplete.",
            "Upload it again; if that does not help, save it again.",
        ) from error
    strange = sorted(imports - _ALLOWED)
    if strange:
        raise _refusal(strange)


def _refusal(strange: Iterable[str]) -> TeacherError:
    names = ", ".join(printable(name) for name in list(strange)[:3])
    if any(name.startswith(("torch.nn.modules.", "torch.nn.parallel.")) for name in strange):
        return refuse(
            ErrorCode.PICKLED_MODULE,
            "The teacher file is a whole pickled network; loading it would run code from the file.",
        )
    if any(name.startswith("__torch__.") for name in strange):
        return torchscript()
    if all(_OF_TENSORS.fullmatch(name) for name in strange):
        return refuse(
            ErrorCode.UNSUPPORTED_TENSOR,
            f"The teacher file holds tensors that are not plain dense ones (it needs {names}).",
            "Convert each to a dense float tensor before saving: tensor.to_dense().float()",
        )
    return refuse(
        ErrorCode.UNSAFE_CHECKPOINT,
        f"The teacher file wants to use {names} when it is loaded, which no state dict needs.",
    )


def torchscript() -> TeacherError:
    """The refusal of a TorchScript archive, which is a program."""
    return refuse(
        ErrorCode.TORCHSCRIPT,
        "The teacher file is a TorchScript program; only weights are accepted.",
        'Upload what this line writes: torch.save(torch.jit.load("teacher.pt").state_dict(), "weights.pt")',
    )
