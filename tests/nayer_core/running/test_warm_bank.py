"""A warm-up that is kept and taken again: the same student, sooner; and what is not taken."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nayer_core.commands import distill
from nayer_core.contract.banks import AFTER_WARMUP, bank_key
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import BankEvent, Event, PhaseEvent, ProgressEvent, WarningEvent
from nayer_core.contract.normalization import Normalization
from nayer_core.contract.spec import ResolvedSpec, TextEncoderSpec
from nayer_core.networks.registry import build
from nayer_core.networks.weights import file_sha256, save_weights

SIZE = (1, 12, 12)
CONFIG = DistillConfig(
    epochs=2,
    warmup_epochs=2,
    rounds_per_epoch=1,
    warmup_rounds_per_epoch=2,
    generator_steps=2,
    student_steps=3,
    synthesis_batch_size=9,
    student_batch_size=8,
    generator="table8",
    generator_width=8,
    noise_dim=16,
    precision="fp32",
)
SPEC = ResolvedSpec(
    labels=("circle", "square", "star"),
    input_size=SIZE,
    normalization=Normalization(mean=(0.5,), std=(0.25,)),
    teacher_architecture="wrn_10_1",
    teacher_accuracy=None,
    student_architecture="wrn_10_1",
    preset="quick",
    config=CONFIG,
    text_encoder=TextEncoderSpec(name="file", whiten=True),
    seed=3,
    reuse_bank=True,
)


class Outcome:
    """A run of the command: where its files lie, and what it told."""

    def __init__(self, root: Path, name: str, *, teacher: int = 0, bank: Path | None = None, **changes: Any):
        self.out = root / name
        source = root / f"{name}-inputs"
        source.mkdir()
        torch.manual_seed(teacher)
        network = build("wrn_10_1", num_classes=3, input_size=SIZE)
        network(torch.randn(64, *SIZE))
        save_weights(network, source / "teacher.safetensors")
        codes = torch.randn(3, 10, generator=torch.Generator().manual_seed(5))
        save_file({"lte": codes}, source / "lte.safetensors")
        spec = SPEC.model_copy(update=changes)
        (source / "spec.json").write_text(spec.model_dump_json())
        options: dict[str, Any] = {"input": source, "out": self.out, "device": "cpu", "bank": bank}
        options |= {"resume": None, "seed": None, "name": name, "checkpoint_seconds": 60.0}
        self.events: list[Event] = []
        distill.run(argparse.Namespace(**options), self.events.append)

    @property
    def bank(self) -> Path:
        return self.out / "bank.safetensors"

    @property
    def student(self) -> str:
        return file_sha256(self.out / "student.safetensors")

    @property
    def card(self) -> dict[str, Any]:
        method: dict[str, Any] = json.loads((self.out / "model_card.json").read_text())["method"]
        return method

    def phases(self) -> list[str]:
        return [event.phase for event in self.events if isinstance(event, PhaseEvent)]

    def warnings(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, WarningEvent)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("first"), "first")


def test_a_bank_of_the_same_seed_gives_bitwise_the_student_of_an_own_warm_up(first: Outcome, tmp_path: Path):
    second = Outcome(tmp_path, "second", bank=first.bank)
    assert second.phases() == ["distill", "evaluate"]
    assert second.student == first.student
    assert not second.bank.exists()


def test_events_and_model_card_say_whose_bank_it_was(first: Outcome, tmp_path: Path):
    second = Outcome(tmp_path, "second", bank=first.bank)
    (bank_event,) = (event for event in second.events if isinstance(event, BankEvent))
    assert (bank_event.made_by, bank_event.seed, bank_event.images) == ("first", 3, 36)
    assert bank_event.sha256 == file_sha256(first.bank)
    assert second.card["warm_bank"] == bank_event.model_dump(exclude={"time", "event"})
    assert first.card["warm_bank"] is None


def test_another_student_and_another_seed_may_follow(first: Outcome, tmp_path: Path):
    again = [
        Outcome(tmp_path, name, bank=first.bank, student_architecture="lenet5", seed=4)
        for name in ("one", "other")
    ]
    assert [run.phases() for run in again] == [["distill", "evaluate"]] * 2
    assert again[0].student == again[1].student
    steps = [event.fraction for event in again[0].events if isinstance(event, ProgressEvent)]
    assert len(steps) == 2 * 2 + 2 * 3
    assert steps[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    "changes",
    [{"teacher": 1}, {"config": CONFIG.model_copy(update={"ce_weight": 0.25})}],
    ids=["teacher", "synthesis"],
)
def test_a_bank_of_another_warm_up_is_not_taken(first: Outcome, tmp_path: Path, changes: dict[str, Any]):
    other = Outcome(tmp_path, "other", bank=first.bank, **changes)
    assert "bank_unusable" in other.warnings()
    assert other.phases() == ["warmup", "distill", "evaluate"]
    assert other.bank.exists()


def test_with_a_damaged_bank_the_run_warms_up_itself(first: Outcome, tmp_path: Path):
    content = first.bank.read_bytes()
    damaged = {
        "short": content[:-1],
        "flipped": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "no bank": b"[]",
    }
    for name, body in damaged.items():
        (tmp_path / "bank").write_bytes(body)
        run = Outcome(tmp_path, name, bank=tmp_path / "bank")
        assert "bank_unusable" in run.warnings(), name
        assert run.student == first.student


def test_without_reuse_bank_no_bank_is_written(tmp_path: Path):
    assert not Outcome(tmp_path, "plain", reuse_bank=False).bank.exists()


def test_a_bank_holds_images_and_no_student(first: Outcome):
    names = {name.split(".")[0] for name in load_file(first.bank)}
    assert names == {"images", "labels", "synthesizer"}


def test_the_bank_key_depends_only_on_the_warm_up():
    def key(**changes: Any) -> str:
        config = CONFIG.model_copy(update=changes)
        resolved = SPEC.model_copy(update={"config": config}).model_dump(mode="json")
        return bank_key(resolved, teacher_sha256="a", embeddings_sha256="b")

    assert set(DistillConfig.model_fields) >= AFTER_WARMUP
    assert key() == key(temperature=3.0, epochs=9, student_lr=0.01)
    assert len({key(), key(bn_weight=1.0), key(warmup_epochs=3), key(flip=False), key(precision="bf16")}) == 5
    resolved = SPEC.model_dump(mode="json")
    assert bank_key(resolved, teacher_sha256="a", embeddings_sha256="c") != key()
    assert bank_key(resolved | {"seed": 9}, teacher_sha256="a", embeddings_sha256="b") == key()
