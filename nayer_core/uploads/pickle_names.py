"""Which functions and classes a pickle may name: those of tensors, harmless ones, and those that do harm.

Nothing that a pickle names is ever called here, so the list protects no one on this machine. It tells a
training script's file from one that was built to run code where people load it, and refuses the latter.
"""

import re
import sys
from collections.abc import Iterable

_DTYPES = r"float32|float64|float16|bfloat16|int64|int32|int16|int8|uint8|bool"
# What files of torch need for plain tensors and dicts.
_PLAIN = re.compile(
    r"collections\.(OrderedDict|defaultdict)|torch\._utils\._rebuild_(tensor(_v2)?|parameter(_with_state)?)"
    rf"|torch\.(Size|device|Tensor|{_DTYPES})|torch\.(cuda\.)?[A-Z]\w+Storage|torch\.nn\.parameter\.Parameter"
    r"|torch\._tensor\._rebuild_from_type_v2|(builtins|__builtin__)\.(dict|set)"
)
# Tensors that are sparse, quantized, nested, complex, without data, ...
_OF_TENSORS = re.compile(
    r"torch\._(utils|tensor)\._rebuild\w+|torch\.serialization\._get_layout|torch\.storage\.\w+Storage"
    r"|torch\.(\w+(Storage|Tensor)|Tensor|complex\w+|float\w+|u?q?u?int\w+|bits\w+|per_\w+)"
    r"|torch\.(cuda|sparse)\.\w+"
)
# Types that training code saves beside the weights, and functions that pickle needs for them. Other names of
# the standard library, of NumPy and of torch count as harmful code.
_BUILTIN_TYPES = (
    "list|dict|tuple|set|frozenset|slice|x?range|complex|object|int|long|float|bool|str|unicode|bytes|bytearray"
    r"|type|getattr|Ellipsis|NotImplemented|\w+(Error|Exception|Warning)"
)
_HARMLESS = re.compile(
    r"argparse\.\w+|collections\.[A-Za-z]+|datetime\.\w+|pathlib\.(\w+\.)?\w+|functools\.partial|types\.(SimpleNamespace|MappingProxyType|NoneType|GenericAlias)"
    r"|(decimal|fractions|uuid|enum|typing|dataclasses|ipaddress|zoneinfo|statistics|array)\.\w+"
    r"|(copyreg|copy_reg|_codecs)\.\w+|random\.Random|time\.struct_time|inspect\.(Parameter|Signature|_empty|_ParameterKind)|re\._compile"
    r"|itertools\.\w+|logging\.(\w*Handler|Logger|RootLogger|Formatter|Filter|getLogger)|os\.PathLike"
    r"|torch\.(nn|optim|distributed|distributions|amp|ao|quantization|utils\.data)\..+"
    r"|torch\.(torch_version\.TorchVersion|_C\.(Generator|_nn\.\w+|_distributed_c10d\.\w+)|Generator|dtype|layout|memory_format)"
    r"|torch\.(contiguous_format|channels_last\w*|preserve_format|strided|finfo|cuda\.amp\..+|device)"
    rf"|(builtins|__builtin__)\.({_BUILTIN_TYPES})"
    r"|numpy\.(_?core\.\w+\.\w+|random\..+|dtypes?(\.\w+)?|ndarray|ma\..+|rec\.\w+|matrix|_globals\.\w+)"
    r"|numpy\.(bool|u?int|float|complex|str|bytes|datetime|timedelta|object|void|generic|number)\w*"
)
_SENSITIVE_PACKAGES = {*sys.stdlib_module_names, "__builtin__", "exceptions", "numpy", "torch"}
# How pickle puts objects together: nothing to tell people about if there are other names.
_PLUMBING = re.compile(
    r"(copyreg|copy_reg|_codecs)\.\w+|(builtins|__builtin__)\.\w+|numpy\.(_?core\.\w+\.\w+|dtype)"
)


def may_harm(name: str) -> bool:
    """Whether no training script needs `name`, and calling it may run code or fill the machine."""
    return (
        name.partition(".")[0] in _SENSITIVE_PACKAGES
        and not _PLAIN.fullmatch(name)
        and not _HARMLESS.fullmatch(name)
        and not _OF_TENSORS.fullmatch(name)
    )


def is_of_tensors(name: str) -> bool:
    """Whether `name` makes tensors of a kind that is not taken."""
    return bool(_OF_TENSORS.fullmatch(name))


def is_of_torchscript(name: str) -> bool:
    """Whether `name` is a class of a TorchScript program."""
    return name.startswith("__torch__.")


def of_objects(names: Iterable[str]) -> list[str]:
    """Return the names whose objects are left out of what is read, those that tell most first."""
    strange = [name for name in names if not _PLAIN.fullmatch(name) and not is_of_tensors(name)]
    return sorted(strange, key=lambda name: bool(_PLUMBING.fullmatch(name)))
