"""The outline of a pickle: keys, tensors and networks, read from its opcodes without loading it.

Only for hints: the message about a refused file names the keys in it.
"""

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_OPCODES = 500_000
_DEEPEST = 4
_TENSOR_MAKERS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_parameter")
_DICTS = ("collections.OrderedDict", "collections.defaultdict")
_MARK, _TENSOR = "a mark", "a tensor"  # placeholders on the stack


@dataclass
class _Dict:
    entries: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass
class _Object:
    is_network: bool = False


@dataclass(frozen=True)
class Outline:
    """The parts of a pickle that a hint can name.

    Args:
        weights: the keys that lead to the dict with the most tensors; None if no dict has any.
        network: the keys that lead to a whole network, () to the pickle itself; None if there is none.
    """

    weights: tuple[str, ...] | None
    network: tuple[str, ...] | None


def read_outline(file: BinaryIO) -> Outline:
    """Read one pickle to its end.

    Args:
        file: at the pickle's first byte.

    Returns:
        The outline; empty if the pickle is damaged or too long.
    """
    try:
        root = _run(file)
    except Exception:
        # genops raises any error of its argument readers, and a stack may be too short. The file was already
        # refused for another reason.
        return Outline(None, None)
    tensors: dict[tuple[str, ...], int] = {}
    networks = []
    for path, value in _walk(root, ()):
        if isinstance(value, _Dict):
            tensors[path] = sum(entry is _TENSOR for entry in value.entries.values())
        elif value.is_network:
            networks.append(path)
    weights = max(tensors, key=lambda path: tensors[path], default=None)
    if weights is not None and not tensors[weights]:
        weights = None
    return Outline(weights, networks[0] if networks else None)


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Dict | _Object]]:
    if isinstance(value, _Dict | _Object):
        yield path, value
    if isinstance(value, _Dict) and len(path) < _DEEPEST:
        for key, entry in value.entries.items():
            if not key.startswith("optim"):
                yield from _walk(entry, (*path, key))


def _run(file: BinaryIO) -> Any:
    """Run the stack machine of pickle on placeholders; return the placeholder of the whole."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if count > MAX_OPCODES:
            raise ValueError("too long")
        if name == "STOP":
            return stack[-1]
        if name.endswith("PUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo.get(int(argument)))
        else:
            _step(stack, opcode, argument)
    return None


def _step(stack: list[Any], opcode: pickletools.OpcodeInfo, argument: Any) -> None:
    name = opcode.name
    operands = _take(stack, opcode)
    if name in ("SETITEM", "SETITEMS"):
        target, *pairs = operands
        if isinstance(target, _Dict):
            keys, values = pairs[::2], pairs[1::2]
            target.entries |= {
                key: value for key, value in zip(keys, values, strict=True) if isinstance(key, str)
            }
        stack.append(target)
    elif name == "EMPTY_DICT":
        stack.append(_Dict())
    elif name == "GLOBAL":
        stack.append(_Global(str(argument).replace(" ", ".")))
    elif name in ("REDUCE", "NEWOBJ"):
        stack.append(_placeholder(operands[0]))
    elif name == "BUILD":
        target, state = operands
        if isinstance(target, _Object) and isinstance(state, _Dict):
            target.is_network = "_modules" in state.entries
        stack.append(target)
    elif isinstance(argument, str) and "UNICODE" in name:
        stack.append(argument)
    else:
        stack += [_MARK if name == "MARK" else None] * len(opcode.stack_after)


def _placeholder(maker: Any) -> Any:
    """Return the placeholder for the result of calling `maker`."""
    name = maker.name if isinstance(maker, _Global) else ""
    if name in _DICTS:
        return _Dict()
    return _TENSOR if name.startswith(_TENSOR_MAKERS) else _Object()


def _take(stack: list[Any], opcode: pickletools.OpcodeInfo) -> list[Any]:
    """Pop the operands of an opcode: down to the mark, or a fixed number."""
    before = opcode.stack_before
    if pickletools.markobject in before:
        mark = len(stack) - 1
        while stack[mark] is not _MARK:
            mark -= 1
        below = before.index(pickletools.markobject)
        operands = stack[mark - below : mark] + stack[mark + 1 :]
        del stack[mark - below :]
        return operands
    operands = stack[len(stack) - len(before) :]
    del stack[len(stack) - len(before) :]
    return operands
