"""`distill --processes 2` is one program to whoever starts it, however it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.small_runs import CONFIG, write_inputs

ROOT = Path(__file__).parents[3]
CALM = {"epochs": 1, "generator_lr": 1e-4, "student_lr": 0.05}  # as in test_processes.py
LONG = {"epochs": 100_000}


class Run:
    """A program under way, and what it has written to stdout."""

    def __init__(self, command: list[str], stdout: Path):
        self._stdout = stdout
        with stdout.open("w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "2"}
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file)

    def wait_for_checkpoint(self) -> None:
        assert _comes_true(lambda: '"checkpoint"' in self._stdout.read_text() or self.process.poll())
        assert self.process.poll() is None

    def end(self) -> tuple[int, list[dict[str, Any]]]:
        code = self.process.wait(timeout=200)
        return code, [json.loads(line) for line in self._stdout.read_text().splitlines()]

    def ranks(self) -> list[int]:
        """The processes that share the run, the first of them first."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(map(int, pids.split()), key=_rank)


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a run with the inputs of `write_inputs`; ended with the test."""
    with contextlib.ExitStack() as stack:

        def begin(changes: dict[str, Any], out: str, *more: str, processes: int = 2) -> Run:
            source = tmp_path / "in"
            if not source.exists():
                write_inputs(source, CONFIG.model_copy(update=changes))
            words = ["distill", "--in", str(source), "--out", str(tmp_path / out), "--device", "cpu"]
            words += ["--checkpoint-seconds", "0", "--processes", str(processes), *more]
            run = Run([sys.executable, "-m", "nayer_core", *words], tmp_path / f"{len(more)}-{out}.jsonl")
            stack.callback(run.process.wait)
            stack.callback(run.process.kill)
            return run

        yield begin


def test_two_processes_finish_with_the_student_of_one(start: Start, tmp_path: Path):
    for name, count in {"one": 1, "two": 2}.items():
        code, events = start(CALM, name, processes=count).end()
        assert code == 0
        assert [event["event"] for event in events].count("finished") == 1
        assert events[-1]["event"] == "finished"
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


def test_a_stopped_run_is_resumed_and_one_that_loses_a_process_leaves_none(start: Start, tmp_path: Path):
    stopped = start(LONG, "out")
    stopped.wait_for_checkpoint()
    stopped.process.terminate()
    code, events = stopped.end()
    assert (code, events[-1]["event"]) == (3, "stopped")

    resumed = start(LONG, "out", "--resume", str(tmp_path / "out" / "checkpoint"))
    resumed.wait_for_checkpoint()
    first, second = resumed.ranks()
    os.kill(second, signal.SIGKILL)
    code, events = resumed.end()
    assert code == 1
    steps = [event["step"] for event in events if event["event"] == "checkpoint"]
    assert steps[0] > 1  # it went on, and did not begin again
    assert _comes_true(lambda: not _runs(first) and not _runs(second))


def test_processes_die_with_the_one_that_started_them(start: Start):
    run = start(LONG, "out")
    run.wait_for_checkpoint()
    first, second = run.ranks()
    run.process.kill()
    assert _comes_true(lambda: not _runs(first) and not _runs(second))


def test_both_processes_roll_back_and_one_reports_the_failure(start: Start, tmp_path: Path):
    code, events = start({**CALM, "student_lr": 10.0, "student_weight_decay": 1e6}, "out").end()
    assert code == 2
    assert [event["code"] for event in events if event["event"] == "warning"] == ["rolled_back"] * 3
    assert [event["code"] for event in events if event["event"] == "failed"] == ["diverged"]
    assert events[-1]["event"] == "failed"
    assert (tmp_path / "out" / "partial_student.safetensors").is_file()


def _rank(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(variable for variable in variables if variable.startswith("RANK="))


def _runs(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _comes_true(condition: Callable[[], Any], seconds: float = 100) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
