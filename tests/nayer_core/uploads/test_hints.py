"""Hints are lines of Python for the file that was refused: each is run here, and what it writes is taken."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nayer_core.commands.teacher_reading import Teacher, read_teacher
from nayer_core.contract.errors import ErrorCode, TeacherError
from tests.support.client_files import REFUSED, network
from tests.support.hostile_files import archive, of_opcodes, tar

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def read(path: Path, classes: int = 4) -> Teacher:
    return read_teacher(path, "auto", num_classes=classes, input_size=(3, 32, 32), scratch=path.parent)


def refused(path: Path, classes: int = 4) -> TeacherError:
    with pytest.raises(TeacherError) as raised:
        read(path, classes)
    return raised.value


def follow(hint: str, folder: Path) -> Path:
    """Run the line of a hint where the file is; return the file that it writes."""
    line = re.search(r"import .*", hint)
    assert line is not None, hint
    before = set(folder.iterdir())
    exec(line[0], {})  # noqa: S102 - what the hint tells people to run
    (new_file,) = set(folder.iterdir()) - before
    return new_file


def logits(teacher: Teacher) -> Tensor:
    with torch.no_grad():
        answer: Tensor = teacher.network(IMAGES)
    return answer


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of old and sparse files
@pytest.mark.parametrize("case", REFUSED)
def test_the_line_of_a_hint_makes_the_file_one_that_is_taken(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, code = REFUSED[case]
    expected = network().eval()
    monkeypatch.chdir(tmp_path)
    client_file = write(tmp_path, dict(expected.state_dict()))
    error = refused(tmp_path / client_file)
    assert error.code == code, error
    assert "network.state_dict()" not in error.hint
    new_file = follow(error.hint, tmp_path)
    teacher = read(new_file)
    with torch.no_grad():
        tolerance = 0.1 if case.startswith("float8") else 1e-6
        torch.testing.assert_close(logits(teacher), expected(IMAGES), rtol=0, atol=tolerance)


def test_keys_of_the_file_are_quoted_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(network().state_dict())
    state["linear.bias"] = state["linear.bias"].to(torch.int8)
    for key in ('a"]; import os; os.system("touch owned") #', "it's", "both ' and \"", "new\nline", "é"):
        folder = tmp_path / ascii(key).encode().hex()[:40]
        folder.mkdir()
        monkeypatch.chdir(folder)
        torch.save({key: state}, folder / "teacher.pt")
        hint = refused(folder / "teacher.pt").hint
        assert hint.isascii()
        assert read(follow(hint, folder)).recognition.architecture == "resnet20"
    assert not list(tmp_path.rglob("owned"))


LARGE_METADATA = json.dumps({"metadata": {"note": "x" * 3000}, "weight_map": {"a": "m-1.safetensors"}})


@pytest.mark.parametrize(
    ("contents", "code", "expected_text", "hint"),
    [
        pytest.param(
            archive([("model/best.pth", b"x"), ("model/log.txt", b"y")], zipfile.ZIP_DEFLATED),
            ErrorCode.UNSUPPORTED_FORMAT,
            "a zip archive around 'model/best.pth'",
            "Unpack it and upload that file.",
            id="a zip around a file of weights",
        ),
        pytest.param(
            archive([("a.safetensors", b"x"), ("b.safetensors", b"y")]),
            ErrorCode.UNSUPPORTED_FORMAT,
            "'a.safetensors', 'b.safetensors'",
            "upload the one with the teacher's weights",
            id="a zip around two",
        ),
        pytest.param(
            archive([("metadata.json", b"{}"), ("config.json", b"{}"), ("model.weights.h5", b"x")]),
            ErrorCode.UNSUPPORTED_FORMAT,
            "a Keras network",
            "Only networks of PyTorch are taken",
            id="Keras",
        ),
        pytest.param(
            archive([("saved/saved_model.pb", b"x"), ("saved/variables/variables.index", b"y")]),
            ErrorCode.UNSUPPORTED_FORMAT,
            "a TensorFlow SavedModel",
            "Only networks of PyTorch are taken",
            id="SavedModel",
        ),
        pytest.param(
            archive([("photos/1.jpg", b"x")]),
            ErrorCode.NOT_A_CHECKPOINT,
            "a zip archive of something else; it begins with 'photos/1.jpg'",
            "torch.save(network.state_dict()",
            id="a zip of pictures",
        ),
        pytest.param(
            b"\n <!DOCTYPE html><title>Virus scan warning</title>",
            ErrorCode.NOT_A_CHECKPOINT,
            "a web page",
            "Download the file again",
            id="a web page",
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            ErrorCode.NOT_A_CHECKPOINT,
            "a Git LFS pointer",
            "`git lfs pull`",
            id="a Git LFS pointer",
        ),
        pytest.param(
            b'\xef\xbb\xbf{"architectures": ["ViTForImageClassification"]}',
            ErrorCode.NOT_A_CHECKPOINT,
            "a JSON document",
            "model.safetensors",
            id="a config of the hub",
        ),
        pytest.param(
            LARGE_METADATA.encode(),
            ErrorCode.NOT_A_CHECKPOINT,
            "an index of shards",
            "Join the shards",
            id="an index of shards that says late what it is",
        ),
        pytest.param(
            tar(),
            ErrorCode.UNSUPPORTED_FORMAT,
            "a tar archive",
            "Unpack it and upload the file inside.",
            id="tar",
        ),
    ],
)
def test_the_error_for_a_file_that_is_no_teacher_says_what_to_do(
    contents: bytes, code: ErrorCode, expected_text: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "teacher.pt").write_bytes(contents)
    error = refused(tmp_path / "teacher.pt")
    assert error.code == code
    assert expected_text in error.message
    assert hint in error.hint


@pytest.mark.parametrize("harm", [b"posix\nsystem", b"torch\nload", b"numpy.testing\nrundocs"])
def test_a_file_with_code_is_not_to_be_loaded(harm: bytes, tmp_path: Path) -> None:
    call = b"c" + harm + b"\nX\x01\x00\x00\x00b\x85R"
    (tmp_path / "teacher.pt").write_bytes(of_opcodes(b"}X\x01\x00\x00\x00a" + call + b"s"))
    error = refused(tmp_path / "teacher.pt")
    assert error.code == ErrorCode.UNSAFE_CHECKPOINT
    assert "Do not load this file" in error.hint
    assert "weights_only" not in error.hint
