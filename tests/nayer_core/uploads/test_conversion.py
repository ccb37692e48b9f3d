"""Hostile files: refused with a code and a hint, by a process that outlives each of them."""

import random

import pytest
import torch
from safetensors.torch import save as save_safetensors

from nayer_core.contract.errors import TeacherError
from nayer_core.uploads import conversion
from nayer_core.uploads.file_kind import FileKind
from tests.support.hostile_cases import CASES
from tests.support.hostile_files import CANARY, good, safetensors_file, saved


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(conversion, "CPU_SECONDS", 4)


# Refused for what is beside the tensors, which training code saves and which does no harm.
NAMES_NO_CODE = ("whole module", "whole legacy module")


def convert(contents, tmp_path):
    upload = tmp_path / "upload.pt"
    upload.write_bytes(contents)
    return conversion.convert_teacher(upload, tmp_path / "converted")


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_teacher_is_refused_with_a_code_and_a_hint(case, tmp_path):
    build, code = CASES[case]
    with pytest.raises(TeacherError) as raised:
        convert(build(), tmp_path)
    error = raised.value
    assert error.code == code, str(error)
    assert error.message
    assert error.hint
    assert not error.retryable
    # torch's own words advise to load without protection; ours do so of files that name no code.
    if "weights_only" in f"{error.message} {error.hint}":
        assert case in NAMES_NO_CODE
        assert "If you trust the file" in error.hint
    assert len(error.message) < 500
    assert error.message.isascii()
    assert not CANARY.exists()


STATE = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "bn.running_var": torch.ones(2),
    "bn.num_batches_tracked": torch.tensor(7),
    "fc.weight": torch.arange(8.0).reshape(4, 2).t(),  # not contiguous
}


def of_floats(change):
    return {name: change(value) if value.is_floating_point() else value for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("contents", "kind", "keys"),
    [
        pytest.param(lambda: saved(STATE), FileKind.TORCH_ZIP, (), id="zip"),
        pytest.param(
            lambda: saved(STATE, _use_new_zipfile_serialization=False),
            FileKind.TORCH_LEGACY,
            (),
            id="legacy",
        ),
        pytest.param(
            lambda: save_safetensors({name: value.contiguous() for name, value in STATE.items()}),
            FileKind.SAFETENSORS,
            (),
            id="safetensors",
        ),
        pytest.param(
            lambda: saved({"epoch": 3, "acc": 0.9, "state_dict": STATE, "optimizer": {"state": {}}}),
            FileKind.TORCH_ZIP,
            ("state_dict",),
            id="wrapped",
        ),
        pytest.param(
            lambda: saved({"args": {"lr": 0.1, "name": "x"}, "net": {"model": STATE}}),
            FileKind.TORCH_ZIP,
            ("net", "model"),
            id="wrapped twice",
        ),
        pytest.param(
            lambda: saved(of_floats(torch.nn.Parameter)),
            FileKind.TORCH_ZIP,
            (),
            id="parameters",
        ),
        pytest.param(
            lambda: saved(of_floats(torch.Tensor.half)),
            FileKind.TORCH_ZIP,
            (),
            id="fp16",
        ),
        pytest.param(
            lambda: save_safetensors(of_floats(lambda value: value.contiguous().bfloat16())),
            FileKind.SAFETENSORS,
            (),
            id="bf16",
        ),
    ],
)
def test_a_state_dict_keeps_its_numbers_whatever_it_came_in(contents, kind, keys, tmp_path):
    file = convert(contents(), tmp_path)
    assert (file.kind, file.choice.weights.keys) == (kind, keys)
    tensors = file.tensors
    assert tensors.keys() == STATE.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float32 if STATE[name].is_floating_point() else torch.int64)
        assert torch.equal(tensor, STATE[name].to(tensor.dtype))


@pytest.mark.parametrize("length", [0x0280, 0x4D5A, 0x8B1F, 0x2123, 0x3C])
def test_a_length_that_looks_like_another_format_is_a_length(length, tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    file = convert(safetensors_file(header, bytes(4)), tmp_path)
    assert file.kind is FileKind.SAFETENSORS
    assert file.tensors["a"].tolist() == [0.0]


def test_tied_weights_and_views_become_separate_tensors(tmp_path):
    whole = torch.randn(6, 4)
    tensors = convert(saved({"a": whole, "b": whole, "c": whole[2:4, 1:3]}), tmp_path).tensors
    assert torch.equal(tensors["a"], whole)
    assert torch.equal(tensors["b"], whole)
    assert torch.equal(tensors["c"], whole[2:4, 1:3])


@pytest.mark.parametrize("kind", FileKind)
def test_a_changed_byte_is_refused_or_harmless(kind, tmp_path):
    """Wherever a bit flips or a file is cut: finite tensors or a refusal, and nothing else."""
    sound = {
        FileKind.TORCH_ZIP: good(),
        FileKind.TORCH_LEGACY: saved({"a": torch.ones(3, 3)}, _use_new_zipfile_serialization=False),
        FileKind.SAFETENSORS: save_safetensors({"a": torch.ones(3, 3), "b": torch.ones(2)}),
    }[kind]
    chance = random.Random(f"{kind}")
    for _ in range(40):
        contents = bytearray(sound)
        for _ in range(chance.choice((1, 1, 1, 4))):
            contents[chance.randrange(len(contents))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            del contents[chance.randrange(len(contents)) :]
        try:
            tensors = convert(bytes(contents), tmp_path).tensors
        except TeacherError:
            continue
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    assert not CANARY.exists()
