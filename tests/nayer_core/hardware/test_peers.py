"""Two processes come to what one comes to with the same batches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.small_runs import CONFIG, write_inputs

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Small rates: Adam's first steps go by the sign of a gradient, and so make much of a last bit.
CALM = {"epochs": 1, "generator_lr": 1e-4, "student_lr": 0.05}
SHORT = json.dumps(CALM)
UNEVEN = json.dumps(
    {
        **CALM,
        "synthesis_batch_size": 9,
        "student_batch_size": 7,
        "generator": "published",
        "bn_weight": 1,
        "attention_weight": 2,
        "procedural_share": 0.4,
    }
)


def _python(*words: str) -> str:
    return subprocess.run(
        [sys.executable, *words], check=True, timeout=300, stdout=subprocess.PIPE, text=True
    ).stdout


def _assert_close(two: dict[str, Tensor], one: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        if value.is_floating_point():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
        elif name == "bank":  # bytes, rounded from floats that differ in their last bits
            assert (two[name].int() - value.int()).abs().max() <= 1
        else:
            assert torch.equal(two[name], value)


@pytest.mark.parametrize(
    ("teacher", "changes"),
    [("wrn_10_1", SHORT), ("lenet5", UNEVEN)],
    ids=["even shares", "uneven shares, a teacher without BatchNorm"],
)
def test_two_processes_give_the_student_of_one(tmp_path: Path, teacher: str, changes: str):
    for name, launcher in {"one": [], "two": TWO}.items():
        _python(*launcher, "-m", "tests.support.sharing_run", str(tmp_path / name), teacher, changes)
    _assert_close(load_file(tmp_path / "two"), load_file(tmp_path / "one"))


def test_two_processes_stop_together_and_go_on_from_what_the_first_saved(tmp_path: Path):
    program = ["-m", "tests.support.sharing_run"]
    _python(*TWO, *program, str(tmp_path / "whole"), "wrn_10_1", SHORT)
    _python(*TWO, *program, str(tmp_path / "resumed"), "wrn_10_1", SHORT, str(tmp_path / "state"), "7")
    whole, resumed = load_file(tmp_path / "whole"), load_file(tmp_path / "resumed")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_two_processes_emit_events_and_write_files_once(tmp_path: Path):
    source = write_inputs(tmp_path / "in", CONFIG.model_copy(update=CALM))
    command = ["-m", "nayer_core", "distill", "--in", str(source), "--device", "cpu"]
    metrics = {
        name: _python(*launcher, *command, "--out", str(tmp_path / name), "--checkpoint-seconds", "0")
        for name, launcher in {"one": [], "two": TWO}.items()
    }
    events = [json.loads(line)["event"] for line in metrics["two"].splitlines()]
    assert events.count("finished") == 1
    assert events.count("phase") == metrics["one"].count('"event":"phase"')
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "two"))
    _assert_close(two, one)
