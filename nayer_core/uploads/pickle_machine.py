"""Interprets a stranger's pickle without Python's unpickler: nothing is imported, and nothing is called.

A pickle is a program for a machine with a stack. This machine computes with data alone: numbers, texts,
tuples, lists, and dicts with names. Of the functions that a pickle names, the few that torch needs for
tensors have a meaning (`pickle_meaning`), which is a description. Every other name becomes an inert object,
whatever the pickle would do with it.

Time and memory grow with the number of instructions, which is limited: an instruction makes one value at
most, and values are shared, never copied. Only texts are keys, so a stranger cannot choose the hash of one.
"""

import pickletools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

from nayer_core.uploads.pickle_meaning import BadPickleError, Meaning, fill
from nayer_core.uploads.pickled_values import Pickle, PickledDict, PickledName, PickledObject, PickledTensor

MAX_OPCODES = 2_000_000  # a state dict of 20,000 tensors has 700,000
MAX_NAMES = 2_000  # functions and classes
MAX_NAME_CHARS = 200


def read_pickle(file: BinaryIO) -> Pickle:
    """Interpret one pickle to its end.

    Args:
        file: at the pickle's first byte; afterwards after its last byte.

    Raises:
        BadPickleError: the pickle does what no file of torch does.
        Exception: any other, if it is damaged: readers of arguments raise what they will, and the stack may
            be too short.
    """
    machine = _PickleMachine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPCODES:
            raise BadPickleError(f"has more than {MAX_OPCODES} instructions")
        if opcode.name == "STOP":
            return Pickle(machine.stack.pop(), tuple(machine.names), machine.meaning.storages)
        machine.run(opcode.name, argument)
    raise ValueError("the pickle has no end")


class _PickleMachine:
    """The stack, and a method for each kind of instruction."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.names: dict[str, PickledName] = {}
        self.meaning = Meaning(self.named)
        self._below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """Execute one instruction."""
        if opcode in _CONSTANTS:
            self.stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._remember(int(argument))
        elif opcode == "MEMOIZE":
            self._remember(len(self._memo))
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self._memo[int(argument)])
        elif opcode in _NEW:
            self.stack.append(_NEW[opcode]())
        elif opcode in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[opcode])))
        elif opcode in _HANDLERS:
            _HANDLERS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise BadPickleError(f"has the instruction {opcode}")

    def _remember(self, place: int) -> None:
        # Pickle counts places from 0. Numbers at will could be chosen to collide in the hash table.
        if not 0 <= place <= MAX_OPCODES:
            raise BadPickleError("remembers a value at a place that no pickle reaches")
        self._memo[place] = self.stack[-1]

    def _pop(self, count: int) -> list[Any]:
        operands = self.stack[-count:]
        if len(operands) != count:
            raise ValueError("the stack is too short")
        del self.stack[-count:]
        return operands

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below_marks.pop()
        return items

    def mark(self, _: object) -> None:
        self._below_marks.append(self.stack)
        self.stack = []

    def pop_one(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def pop_to_mark(self, _: object) -> None:
        self._pop_mark()

    def duplicate(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def make_tuple(self, _: object) -> None:
        items = self._pop_mark()
        self.stack.append(tuple(items))

    def make_list(self, _: object) -> None:
        items = self._pop_mark()
        self.stack.append(items)

    def make_dict(self, _: object) -> None:
        items = self._pop_mark()
        self.stack.append(PickledDict())
        self._set(items)

    def make_set(self, _: object) -> None:
        self._pop_mark()
        self.stack.append(PickledObject("builtins.frozenset"))

    def append(self, _: object) -> None:
        items = self._pop(1)
        self._extend(items)

    def append_all(self, _: object) -> None:
        items = self._pop_mark()
        self._extend(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += items
        elif not isinstance(target, PickledObject):
            raise BadPickleError("appends to what is no list")

    def set_item(self, _: object) -> None:
        items = self._pop(2)
        self._set(items)

    def set_all(self, _: object) -> None:
        items = self._pop_mark()
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, PickledDict):
            fill(target, items)
        elif isinstance(target, PickledObject):
            part = PickledDict()
            fill(part, items)
            target.parts.append(part)
        else:
            raise BadPickleError("sets items of what has none")

    def build(self, _: object) -> None:
        target, state = self._pop(2)
        self.stack.append(target)
        if isinstance(target, PickledObject):
            # A state may be a pair of attributes and slots. Dicts are shared: copies would multiply.
            parts = state[:2] if isinstance(state, tuple) else (state,)
            target.parts += [part for part in parts if isinstance(part, PickledDict)]
        elif not isinstance(target, PickledDict | PickledTensor):  # no attribute of these is needed
            raise BadPickleError("sets attributes of what is no object")

    def named(self, name: str) -> PickledName:
        """Note the name of a function or class."""
        if name not in self.names:
            if len(name) > MAX_NAME_CHARS or len(self.names) >= MAX_NAMES:
                raise BadPickleError("names too many functions and classes, or one with too long a name")
            self.names[name] = PickledName(name)
        return self.names[name]

    def name(self, argument: str) -> None:
        self.stack.append(self.named(argument.replace(" ", ".", 1)))

    def name_from_stack(self, _: object) -> None:
        module, name = self._pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise BadPickleError("has a name that is no text")
        self.stack.append(self.named(f"{module}.{name}"))

    def make_instance(self, argument: str) -> None:
        maker = self.named(argument.replace(" ", ".", 1))
        arguments = tuple(self._pop_mark())
        self.stack.append(self.meaning.call(maker, arguments))

    def make_object(self, _: object) -> None:
        maker, *arguments = self._pop_mark()
        self.stack.append(self.meaning.call(maker, tuple(arguments)))

    def call(self, _: object) -> None:
        maker, arguments = self._pop(2)
        self.stack.append(self.meaning.call(maker, arguments))

    def call_with_names(self, _: object) -> None:
        maker, arguments, _names = self._pop(3)
        self.stack.append(self.meaning.call(maker, arguments))

    def load_persistent(self, _: object) -> None:
        (identity,) = self._pop(1)
        self.stack.append(self.meaning.persistent(identity))


_CONSTANTS = frozenset(
    {"NONE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_NEW: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "EMPTY_DICT": PickledDict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_SET": lambda: PickledObject("builtins.set"),
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
    }
)
_TUPLES = MappingProxyType({"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3})
_HANDLERS: Mapping[str, Callable[[_PickleMachine, Any], None]] = MappingProxyType(
    {
        "MARK": _PickleMachine.mark,
        "POP": _PickleMachine.pop_one,
        "POP_MARK": _PickleMachine.pop_to_mark,
        "DUP": _PickleMachine.duplicate,
        "TUPLE": _PickleMachine.make_tuple,
        "LIST": _PickleMachine.make_list,
        "DICT": _PickleMachine.make_dict,
        "FROZENSET": _PickleMachine.make_set,
        "APPEND": _PickleMachine.append,
        "APPENDS": _PickleMachine.append_all,
        "ADDITEMS": _PickleMachine.append_all,
        "SETITEM": _PickleMachine.set_item,
        "SETITEMS": _PickleMachine.set_all,
        "BUILD": _PickleMachine.build,
        "GLOBAL": _PickleMachine.name,
        "STACK_GLOBAL": _PickleMachine.name_from_stack,
        "INST": _PickleMachine.make_instance,
        "OBJ": _PickleMachine.make_object,
        "REDUCE": _PickleMachine.call,
        "NEWOBJ": _PickleMachine.call,
        "NEWOBJ_EX": _PickleMachine.call_with_names,
        "BINPERSID": _PickleMachine.load_persistent,
    }
)
