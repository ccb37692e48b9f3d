"""A disk that takes no more is told as such: no bug of ours, and no fault of the file that was read."""

import errno
import io
import os

import pytest
import torch

from nayer_core import __main__ as program
from nayer_core.contract.disk import disk_trouble
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import FailedEvent
from nayer_core.images.memory_bank import MemoryBank
from nayer_core.networks.registry import build
from nayer_core.running.checkpoint import CheckpointFolder
from tests.nayer_core.test_program import run, spec  # noqa: F401 - a fixture
from tests.support.small_disk import fill, small_disk

KIB = 1024


def test_a_teacher_is_not_to_blame_for_a_full_disk(spec, tmp_path):  # noqa: F811 - the fixture
    torch.save(build("resnet20", num_classes=10, input_size=(3, 32, 32)).state_dict(), tmp_path / "t.pt")
    with small_disk(tmp_path / "small", 300 * KIB) as folder:  # the teacher takes 1.1 MB
        code, events, stderr = run(
            "inspect", "--teacher", tmp_path / "t.pt", "--spec", spec, "--out", folder / "out"
        )
    assert code == 2, stderr
    failed = events[-1]
    assert isinstance(failed, FailedEvent)
    assert (failed.code, failed.retryable) == (ErrorCode.DISK_FAILED, True)
    assert "is full" in failed.message
    assert "Traceback" not in stderr


def test_a_full_disk_leaves_the_previous_checkpoint_valid(tmp_path):
    bank = MemoryBank(100, (3, 8, 8), torch.device("cpu"))
    with small_disk(tmp_path / "small", 512 * KIB) as folder:
        checkpoints = CheckpointFolder(folder / "checkpoint")
        bank.add(torch.randint(256, (8, 8, 8, 3), dtype=torch.uint8), torch.arange(8))
        checkpoints.save({"weights": torch.ones(1000)}, {"step": 1}, bank)
        before = {path.name for path in checkpoints.path.iterdir()}
        ballast = fill(folder)
        bank.add(torch.randint(256, (8, 8, 8, 3), dtype=torch.uint8), torch.arange(8))
        with pytest.raises(OSError, match="No space left") as raised:
            checkpoints.save({"weights": torch.zeros(10**5)}, {"step": 2}, bank)
        assert raised.value.errno == errno.ENOSPC
        assert {path.name for path in checkpoints.path.iterdir()} == before
        restored = MemoryBank(100, (3, 8, 8), torch.device("cpu"))
        state = CheckpointFolder(checkpoints.path).load(restored)
        assert (state.facts, len(restored)) == ({"step": 1}, 8)
        ballast.unlink()
        checkpoints.save({"weights": torch.zeros(1000)}, {"step": 2}, bank)
        assert CheckpointFolder(checkpoints.path).load(restored).facts == {"step": 2}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_every_command_reports_a_full_disk(monkeypatch, spec, tmp_path, number):  # noqa: F811 - as above
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("nayer_core.label_embeddings.text_encoders.save_file", refuse)
    output = io.StringIO()
    spec.write_text('{"labels": ["a", "b"], "text_encoder": {"name": "one_hot"}}')
    words = ["embed", "--spec", str(spec), "--out", str(tmp_path)]
    assert program.main(words, output) == 2
    assert '"code":"disk_failed"' in output.getvalue()


def test_other_errors_are_not_the_disk_s():
    assert disk_trouble(OSError(errno.ENOENT, "no such file")) is None
    assert disk_trouble(ValueError("28")) is None
    assert disk_trouble(RuntimeError("I/O error: No space left on device (os error 28)")) == "is full"
