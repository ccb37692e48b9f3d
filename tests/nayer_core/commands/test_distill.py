"""The command `distill` on canonical files: what it leaves, reports and refuses."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nayer_core.commands import distill
from nayer_core.contract.events import EXIT_STOPPED, CheckpointEvent, Event, PhaseEvent, StoppedEvent
from nayer_core.measuring import measurement
from nayer_core.measuring.agreement_map import AgreementMap, Term
from nayer_core.networks.network_file import Description
from nayer_core.networks.registry import build
from nayer_core.networks.weights import file_sha256
from tests.support.small_runs import LABELS, SIZE, write_inputs


def _folder(path: Path, *, evaluation: bool = False, **options: Any) -> Path:
    write_inputs(path, **options)
    if evaluation:
        images = torch.randint(0, 256, (20, 12, 12, 1), dtype=torch.uint8)
        save_file({"images": images, "labels": torch.arange(20) % 4}, path / "evaluation.safetensors")
    return path


def _run(source: Path, out: Path, **more: Any) -> tuple[dict[str, Any] | int, list[Event]]:
    events: list[Event] = []
    options = {"input": source, "out": out, "resume": None, "device": "cpu", "seed": None, **more}
    options = {"bank": None, "name": None} | options
    options.setdefault("checkpoint_seconds", 60.0)
    return distill.run(argparse.Namespace(**options), events.append), events


def test_the_student_file_describes_its_network(tmp_path: Path):
    result, events = _run(_folder(tmp_path / "in"), tmp_path / "out")
    assert isinstance(result, dict)
    student = tmp_path / "out" / "student.safetensors"
    assert result["student"]["sha256"] == file_sha256(student)
    description = Description.read(student)
    assert description.architecture == "lenet5"
    assert description.labels == LABELS
    assert description.input_size == SIZE
    network = build("lenet5", num_classes=4, input_size=SIZE)
    network.load_state_dict(load_file(student))
    assert [event.phase for event in events if isinstance(event, PhaseEvent)] == [
        "warmup",
        "distill",
        "evaluate",
    ]


def test_every_number_says_what_it_was_measured_on(tmp_path: Path):
    notes = ("The head is assumed.",)
    result, _ = _run(_folder(tmp_path / "in", teacher_accuracy=0.9, teacher_notes=notes), tmp_path / "out")
    assert isinstance(result, dict)
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["teacher"]["notes"] == list(notes)
    assert card["metrics"] == json.loads(json.dumps(result["metrics"]))
    assert all(metric["measured_on"] for metric in card["metrics"].values())
    assert [prior["name"] for prior in card["image_priors"]] == ["batch_norm"]
    assert "student_accuracy" not in card["metrics"]
    assert "not accuracy" in card["metrics"]["agreement_on_synthetic"]["measured_on"]


def test_the_card_begins_with_the_quality_and_claims_nothing_beyond_the_map(tmp_path: Path):
    result, _ = _run(_folder(tmp_path / "in", teacher_accuracy=0.9), tmp_path / "out")
    assert isinstance(result, dict)
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert next(iter(card)) == "quality"
    assert card["quality"] == result["quality"]
    agreement = card["quality"]["estimated_agreement"]
    assert agreement["basis"].startswith("unknown: images of 12 pixels")
    assert (agreement["value"], agreement["low"], agreement["high"]) == (None, None, None)
    assert card["metrics"]["teacher_accuracy_stated"]["value"] == 0.9
    assert "student_accuracy_bounds" not in card["metrics"]


def test_the_bounds_of_an_accuracy_follow_from_the_low_end_of_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for_this = {"sides": (12, 12), "classes": (4, 4), "batch_norm": (True,)}

    def map_for_this_run() -> AgreementMap:
        terms = (Term("bank_cutmix.agree_by_class", "logit", 0.5, 0.0, 1.0, clamps=True),)
        known = {"students": 4, "teachers": 1, "coverage": 0.9}
        return AgreementMap(0.0, terms, 0.5, "nayer", ("quick",), **for_this, provenance=known)

    monkeypatch.setattr(measurement, "fitted_map", map_for_this_run)
    result, _ = _run(_folder(tmp_path / "in", teacher_accuracy=0.9), tmp_path / "out")
    assert isinstance(result, dict)
    agreement, metrics = result["quality"]["estimated_agreement"], result["metrics"]
    assert agreement["basis"].startswith("estimated: from synthetic images, by")
    assert 0 < agreement["low"] < agreement["value"] < agreement["high"] < 1
    bounds = metrics["student_accuracy_bounds"]
    assert bounds["lower"] == pytest.approx(max(0, agreement["low"] - 0.1), abs=1e-3)
    assert bounds["upper"] == pytest.approx(min(1, 1.9 - agreement["low"]), abs=1e-3)


def test_with_an_evaluation_set_accuracy_is_measured_on_it(tmp_path: Path):
    result, _ = _run(_folder(tmp_path / "in", evaluation=True, teacher_accuracy=0.9), tmp_path / "out")
    assert isinstance(result, dict)
    agreement, bounds = (
        result["quality"]["estimated_agreement"],
        result["metrics"]["student_accuracy_bounds"],
    )
    assert agreement["value"] == round(result["metrics"]["agreement"]["value"], 3)
    assert agreement["low"] < agreement["value"] <= agreement["high"]
    assert agreement["basis"] == "measured: on the evaluation set uploaded with the job (20 images)"
    assert bounds["lower"] == pytest.approx(max(0, agreement["low"] - 0.1), abs=1e-3)
    assert bounds["upper"] == pytest.approx(min(1, 1.9 - agreement["low"]), abs=1e-3)
    assert {"teacher_accuracy", "student_accuracy", "agreement"} <= set(result["metrics"])
    assert "20 images" in result["metrics"]["student_accuracy"]["measured_on"]


def test_the_curves_are_kept_whole(tmp_path: Path):
    _run(_folder(tmp_path / "in"), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert {"epoch", "step", "ce", "bn", "adv", "generator_loss", "student_loss", "diversity"} <= names
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_the_samples_are_a_picture_of_each_class(tmp_path: Path):
    _run(_folder(tmp_path / "in"), tmp_path / "out")
    picture = Image.open(tmp_path / "out" / "samples.png")
    assert picture.height >= 3 * 48
    assert len(picture.convert("L").getcolors(10_000)) > 20


def test_the_seed_can_be_given_by_hand(tmp_path: Path):
    source = _folder(tmp_path / "in")
    first, again, other = (
        _run(source, tmp_path / name, seed=seed)[0] for name, seed in (("a", None), ("b", 3), ("c", 4))
    )
    digests = [run["student"]["sha256"] for run in (first, again, other) if isinstance(run, dict)]
    assert digests[0] == digests[1] != digests[2]


def test_a_stop_saves_the_state_and_the_resumed_student_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = _folder(tmp_path / "in")
    whole, _ = _run(source, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(distill._StopSignal, "is_requested", lambda _self: True)
        code, events = _run(source, tmp_path / "stopped")
    assert code == EXIT_STOPPED
    assert [type(event) for event in events[-2:]] == [CheckpointEvent, StoppedEvent]
    resumed, _ = _run(source, tmp_path / "resumed", resume=tmp_path / "stopped" / "checkpoint")
    assert isinstance(whole, dict)
    assert isinstance(resumed, dict)
    assert whole["student"]["sha256"] == resumed["student"]["sha256"]
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "resumed")]
    assert logs[0] == logs[1]
