"""The command `distill` where runs diverge or find no memory: what it prints, leaves and ends with."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nayer_core.__main__ import main
from nayer_core.methods.parts.student_training import StudentTrainer
from nayer_core.networks.network_file import Description
from nayer_core.networks.registry import build
from nayer_core.running.method import require_finite
from tests.support.small_runs import CONFIG, SIZE, write_inputs


def distill(source: Path, out: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    stdout = io.StringIO()
    arguments = ["--in", str(source), "--out", str(out), "--device", "cpu", "--checkpoint-seconds", "0"]
    code = main(["distill", *arguments, *more], stdout)
    return code, [json.loads(line) for line in stdout.getvalue().splitlines()]


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the sixth student step still puts an infinity into the student."""
    remaining = [1]
    step = StudentTrainer.step

    def spoiled(trainer, bank):
        loss = step(trainer, bank)
        if trainer.steps_done == 6 and remaining[0]:
            remaining[0] -= 1
            with torch.no_grad():
                next(trainer.student.parameters()).view(-1)[0] = torch.inf
        return loss

    monkeypatch.setattr(StudentTrainer, "step", spoiled)
    return remaining


def test_a_run_that_went_back_says_so_in_its_log_and_its_card(tmp_path: Path, diverging: list[int]):
    code, events = distill(write_inputs(tmp_path / "in"), tmp_path / "out")
    assert code == 0
    (warning,) = of_kind(events, "warning")
    assert warning["code"] == "rolled_back"
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["adaptation"] == {
        "rollbacks": 1,
        "lr_scale": 0.5,
        "synthesis_batch_size": CONFIG.synthesis_batch_size,
        "student_batch_size": CONFIG.student_batch_size,
        "history": [warning["message"]],
    }
    assert card["method"]["config"] == CONFIG.model_dump()
    assert events[-1]["result"]["adaptation"] == card["adaptation"]
    assert not (tmp_path / "out" / "partial_student.safetensors").exists()
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    rates = [row["student_lr"] for row in rows if "student_lr" in row]
    assert len(rates) == 8  # each step once, those of the way that was left not among them
    assert rates[-1] < rates[0] / 2


def test_a_run_that_diverges_after_its_last_rollback_saves_a_partial_student(
    tmp_path: Path, diverging: list[int]
):
    diverging[0] = 4
    code, events = distill(write_inputs(tmp_path / "in"), tmp_path / "out")
    assert code == 2
    assert events[-1]["code"] == "diverged"
    assert "3 times" in events[-1]["message"]
    assert [event["code"] for event in of_kind(events, "warning")] == ["rolled_back"] * 3
    out = tmp_path / "out"
    assert not (out / "student.safetensors").exists()
    partial = out / "partial_student.safetensors"
    assert Description.read(partial).architecture == "lenet5"
    network = build("lenet5", num_classes=4, input_size=SIZE)
    network.load_state_dict(load_file(partial))
    require_finite(network.state_dict().values())
    assert (out / "metrics.jsonl").stat().st_size > 0


def test_three_rollbacks_are_enough_for_three_mishaps(tmp_path: Path, diverging: list[int]):
    diverging[0] = 3
    code, _ = distill(write_inputs(tmp_path / "in"), tmp_path / "out")
    assert code == 0
    assert json.loads((tmp_path / "out" / "model_card.json").read_text())["adaptation"]["lr_scale"] == 1 / 8


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with room for student batches of five."""
    step = StudentTrainer.step

    def limited(trainer, bank):
        if trainer.config.student_batch_size > 5:
            torch.empty(2**60)
        return step(trainer, bank)

    monkeypatch.setattr(StudentTrainer, "step", limited)


@pytest.mark.usefixtures("small_device")
def test_log_and_model_card_record_halved_batches(tmp_path: Path):
    code, events = distill(write_inputs(tmp_path / "in", on_out_of_memory="halve"), tmp_path / "out")
    assert code == 0
    assert [event["code"] for event in of_kind(events, "warning")] == ["batch_halved"] * 2
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["adaptation"]["student_batch_size"] == 3
    assert card["method"]["config"]["student_batch_size"] == 12
    assert len(card["adaptation"]["history"]) == 2


@pytest.mark.usefixtures("small_device")
def test_without_permission_to_halve_the_error_names_sizes_that_fit(tmp_path: Path):
    code, events = distill(write_inputs(tmp_path / "in"), tmp_path / "out")
    assert code == 2
    assert events[-1]["code"] == "device_out_of_memory"
    assert "config.synthesis_batch_size to 10 and config.student_batch_size to 3" in events[-1]["hint"]


def test_checkpoints_of_another_run_in_the_folder_are_removed(tmp_path: Path, diverging: list[int]):
    source, out = write_inputs(tmp_path / "in"), tmp_path / "out"
    diverging[0] = 0
    distill(source, out)
    diverging[0] = 1
    code, events = distill(source, out, "--checkpoint-seconds", "1000")
    assert code == 0
    assert "to step 0" in of_kind(events, "warning")[0]["message"]
