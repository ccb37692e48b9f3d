"""What training scripts save is read: its tensors, and nothing else; no name in it is imported or called."""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from nayer_core.commands.reading_notes import objects_note
from nayer_core.commands.teacher_reading import Teacher, read_teacher
from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.uploads import teacher_file
from nayer_core.uploads.pickle_machine import MAX_NAMES, MAX_OPCODES
from tests.support.client_files import network, under
from tests.support.hostile_files import (
    CANARY,
    Call,
    Storage,
    legacy,
    of_opcodes,
    of_value,
    pickled,
    saved,
    tensor,
    torch_file,
)
from tests.support.training_files import FILES, contents


def read(contents: bytes, folder: Path, **options: Any) -> Teacher:
    path = folder / "teacher.pt"
    path.write_bytes(contents)
    return read_teacher(path, "auto", num_classes=4, input_size=(3, 32, 32), scratch=folder, **options)


def read_here(contents: bytes, folder: Path) -> teacher_file.TeacherFile:
    """Read without the jail: what the reader did would be seen."""
    path = folder / "teacher.pt"
    path.write_bytes(contents)
    with path.open("rb") as file:
        return teacher_file.read_teacher(file)


def refusal(contents: bytes, folder: Path) -> TeacherError:
    with pytest.raises(TeacherError) as raised:
        read_here(contents, folder)
    return raised.value


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of schedulers and old files
@pytest.mark.parametrize("new_layout", [True, False])
@pytest.mark.parametrize("case", FILES)
def test_what_training_scripts_save_is_read(case: str, new_layout: bool, tmp_path: Path) -> None:
    state = dict(network().state_dict())
    teacher = read(contents(case, state, new_layout=new_layout), tmp_path)
    torch.testing.assert_close(dict(teacher.network.state_dict()), state, rtol=0, atol=0)
    name = FILES[case][1]
    messages = {warning.code: warning.message for warning in teacher.warnings()}
    assert ("objects_left_out" in messages) == (name is not None)
    if name is not None:
        names = teacher.file.objects
        assert any(name in it for it in names), names
        assert "They were not read" in messages["objects_left_out"]
        assert len(messages["objects_left_out"]) < 600


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])  # with 0 torch.save cannot name its storages
def test_every_protocol_of_pickle_is_read(protocol: int, tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3)}
    document = {"state_dict": state, "epoch": 3, "text": "\u00e9 \U0001f600", "flag": True, "large": 1 << 80}
    file = read_here(saved(document, pickle_protocol=protocol), tmp_path)
    torch.testing.assert_close(file.tensors, state, rtol=0, atol=0)


def test_an_ordered_dict_of_python_2_is_read(tmp_path: Path) -> None:
    pairs = [["a.weight", tensor()], ["a.bias", tensor(size=(4,), stride=(1,))]]
    file = read_here(of_value(Call(OrderedDict, pairs)), tmp_path)
    assert {name: tuple(it.shape) for name, it in file.tensors.items()} == {
        "a.weight": (4, 4),
        "a.bias": (4,),
    }


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("new_layout", [True, False])
def test_views_strides_and_types_keep_their_numbers(
    kind: torch.dtype, new_layout: bool, tmp_path: Path
) -> None:
    whole = (torch.arange(60) - 20).to(kind).reshape(3, 4, 5)
    state = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "part": whole[1:, ::2, 3],
        "one": whole[0, 0, 1],
    }
    file = read_here(saved(state, _use_new_zipfile_serialization=new_layout), tmp_path)
    for name, value in state.items():
        expected = value.float() if kind.is_floating_point else value
        assert torch.equal(file.tensors[name], expected), name


def test_numbers_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(3, 4), "half": torch.randn(2, 2).half()}
    big = {name: value.clone() for name, value in state.items()}
    for value in big.values():
        value.untyped_storage().byteswap(value.dtype)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(big))) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    file = read_here(out.getvalue(), tmp_path)
    for name, value in state.items():
        assert torch.equal(file.tensors[name], value.float())


CANARY_MODULE = "nayer_canary_module"


@pytest.fixture
def canary_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a stranger that leaves a trace when it is imported, or anything of it is called."""
    trace = tmp_path / "trace"
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{CANARY_MODULE}.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(trace)!r}).write_text('imported')\n"
        "def run(*args): raise SystemExit\n"
        "class Config(dict): pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    return trace


GOOD = b"X\x05\x00\x00\x00goods" + pickled({"fc.weight": tensor()})[2:-1]
NAME = CANARY_MODULE.encode()
TEXT = b"X\x02\x00\x00\x00hi"
CALLS = {
    "REDUCE": b"c" + NAME + b"\nrun\n" + TEXT + b"\x85R",
    "INST": b"(" + TEXT + b"i" + NAME + b"\nrun\n",
    "OBJ": b"(c" + NAME + b"\nrun\n" + TEXT + b"o",
    "NEWOBJ": b"c" + NAME + b"\nConfig\n)\x81",
    "NEWOBJ_EX": b"c" + NAME + b"\nConfig\n)}\x92",
    "BUILD": b"c"
    + NAME
    + b"\nConfig\n)\x81}X\x0c\x00\x00\x00__setstate__c"
    + NAME
    + b"\nrun\nsb"
    + TEXT
    + b"b",
    "SETITEM": b"c" + NAME + b"\nConfig\n)\x81" + TEXT + b"K\x01s",
    "APPEND": b"c" + NAME + b"\nConfig\n)\x81" + TEXT + b"a",
    "a method": b"c__builtin__\ngetattr\nc" + NAME + b"\nConfig\nX\x05\x00\x00\x00clear\x86R)R",
    "a call of a result": b"c" + NAME + b"\nrun\n)R)R",
    "a name alone": b"c" + NAME + b"\nrun\n",
    "a name from the stack": b"X" + len(NAME).to_bytes(4, "little") + NAME + b"X\x03\x00\x00\x00run\x93)R",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_pickle_that_would_run_code_leaves_no_trace(
    call: str, is_legacy: bool, tmp_path: Path, canary_module: Path
) -> None:
    value = b"}(X\x04\x00\x00\x00evil" + CALLS[call] + GOOD + b"u"
    if is_legacy:
        with pytest.raises(TeacherError):  # its storages are missing; the pickle was read before
            read_here(legacy(b"\x80\x02" + value + b"."), tmp_path)
    else:
        file = read_here(of_opcodes(value), tmp_path)
        assert list(file.tensors) == ["fc.weight"]
        assert file.choice.weights.keys == ("goods",)
        assert any(CANARY_MODULE in name for name in file.objects)
    assert not canary_module.exists()
    assert CANARY_MODULE not in sys.modules
    assert not CANARY.exists()


HARM = {
    "os.system": b"cos\nsystem\n",
    "posix.system": b"cposix\nsystem\n",
    "eval": b"c__builtin__\neval\n",
    "exec from the stack": b"X\x08\x00\x00\x00builtinsX\x04\x00\x00\x00exec\x93",
    "a module's member by getattr": b"c__builtin__\ngetattr\ncos.path\nos\nX\x06\x00\x00\x00system\x86R",
    "a function's code": b"ctypes\nFunctionType\n",
    "torch.load": b"ctorch\nload\n",
    "a bare storage": b"ctorch.storage\n_load_from_bytes\n",
    "numpy.load": b"cnumpy\nload\n",
    "operator": b"coperator\nattrgetter\n",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_file_that_names_harmful_code_is_refused_though_its_tensors_are_good(
    harm: str, tmp_path: Path
) -> None:
    error = refusal(of_opcodes(b"}(X\x04\x00\x00\x00evil" + HARM[harm] + GOOD + b"u"), tmp_path)
    assert error.code == ErrorCode.UNSAFE_CHECKPOINT
    assert "Do not load this file" in error.hint


BAD = {
    "duplicate keys": b"}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u",
    "attributes of a function": b"cmy\nthing\n}b",
    "items of a number": b"K\x01X\x01\x00\x00\x00aK\x01s",
    "a call of a number": b"K\x01)R",
    "a number as arguments": b"cmy\nthing\nK\x01R",
    "an extension": b"\x82\x01",
    "a text as an identity": b"P0\n",
    "a distant place in memory": b"]p99999999999\n",
}


@pytest.mark.parametrize("case", BAD)
def test_instructions_that_torch_never_writes_are_refused(case: str, tmp_path: Path) -> None:
    error = refusal(of_opcodes(b"}(X\x01\x00\x00\x00x" + BAD[case] + GOOD + b"u"), tmp_path)
    assert error.code == ErrorCode.UNSAFE_CHECKPOINT
    assert "torch.save writes none like it" in error.message


def test_one_storage_is_described_once(tmp_path: Path) -> None:
    two = {"a": tensor(), "b": tensor(storage=Storage(32))}
    assert refusal(of_value(two), tmp_path).code == ErrorCode.UNSAFE_CHECKPOINT


def test_tensors_of_an_object_that_unknown_code_would_make_are_refused(tmp_path: Path) -> None:
    of_object = b"cmy.package\nWeights\n)\x81" + pickled({"fc.weight": tensor()})[2:-1] + b"b"
    error = refusal(of_opcodes(b"}X\x05\x00\x00\x00model" + of_object + b"s"), tmp_path)
    assert error.code == ErrorCode.UNSAFE_CHECKPOINT
    assert "'my.package.Weights'" in error.message
    assert 'weights_only=False)["model"]' in error.hint


def test_a_tensor_that_unknown_code_would_make_is_an_error_only_if_the_network_needs_it(
    tmp_path: Path,
) -> None:
    state = dict(network().state_dict())
    needed = {**state, "linear.bias": _Wrapper(state["linear.bias"])}
    with pytest.raises(TeacherError) as raised:
        read(saved(needed), tmp_path)
    assert raised.value.code == ErrorCode.UNSAFE_CHECKPOINT
    assert "'linear.bias' is made by" in raised.value.message


class _Wrapper:
    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        return _Wrapper, (self.inner,)


def test_deep_and_wide_pickles_are_read_in_bounded_time(tmp_path: Path) -> None:
    deep = b"}(X\x04\x00\x00\x00deep" + b"]N" + b"\x85" * 200_000 + b"a" + GOOD + b"u"
    assert list(read_here(of_opcodes(deep), tmp_path).tensors) == ["fc.weight"]
    nested: dict[str, Any] = {"fc.weight": tensor()}
    for _ in range(300):
        nested = {"inner": nested}
    assert refusal(of_value(nested), tmp_path).code == ErrorCode.NOT_A_CHECKPOINT


def test_a_pickle_of_too_many_instructions_is_refused(tmp_path: Path) -> None:
    error = refusal(of_opcodes(b"N0" * (MAX_OPCODES // 2) + b"}"), tmp_path)
    assert error.code == ErrorCode.UNSAFE_CHECKPOINT
    assert f"more than {MAX_OPCODES} instructions" in error.message


def test_names_are_few_and_short(tmp_path: Path) -> None:
    many = b"".join(b"cm\nf%d\n0" % index for index in range(MAX_NAMES + 1))
    for opcodes in (many, b"cm\n" + b"f" * 300 + b"\n0"):
        error = refusal(of_opcodes(opcodes + b"}"), tmp_path)
        assert error.code == ErrorCode.UNSAFE_CHECKPOINT
        assert "names too many functions and classes, or one with too long a name" in error.message


def test_names_of_a_stranger_are_escaped(tmp_path: Path) -> None:
    name = "evil\u202e\x1b[31m<b>".encode()
    from_stack = b"X" + len(name).to_bytes(4, "little") + name + b"X\x05\x00\x00\x00thing\x93)R"
    opcodes = b"}(X\x04\x00\x00\x00evil" + from_stack + GOOD + b"u"
    (note,) = objects_note(read_here(of_opcodes(opcodes), tmp_path).objects)
    assert note.message.isascii()
    assert note.message.isprintable()


def test_a_dict_of_one_list_many_times_is_a_bomb(tmp_path: Path) -> None:
    pairs = pickle.dumps([[f"k{i}", i] for i in range(30_000)], protocol=2)[2:-1]
    again = b"ccollections\nOrderedDict\n" + b"h\x00\x85R0"
    opcodes = pairs + b"0" + again * 200 + b"}"
    error = refusal(torch_file(b"\x80\x02" + opcodes + b"."), tmp_path)
    assert error.code == ErrorCode.UNSAFE_CHECKPOINT
    assert "many dicts of one list" in error.message


def test_the_state_dict_may_be_wrapped_in_more_than_one_way(tmp_path: Path) -> None:
    state = dict(network().state_dict())
    teacher = read(saved({"net": {"best": under("module.", state)}, "losses": [1.0]}), tmp_path)
    assert teacher.file.choice.weights.keys == ("net", "best")
