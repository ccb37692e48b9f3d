"""Whole small runs of Algorithm 1: what they report, that they repeat, stop and resume bit by bit."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import CheckpointEvent, MetricsEvent, PhaseEvent, ProgressEvent
from nayer_core.methods.nayer.plan import plan_run
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.run import FORMAT
from tests.support.small_runs import CONFIG, SmallRun, after, same


def test_a_run_fills_the_bank_and_reports_each_part():
    run = SmallRun()
    assert run.go_on()
    assert run.method.bank.added == plan_run(CONFIG).images == 60
    assert [event.phase for event in run.of(PhaseEvent)] == ["warmup", "distill"]
    names = [set(event.values) for event in run.of(MetricsEvent)]
    assert {"ce", "bn", "generator_loss"} in names
    assert {"ce", "bn", "adv", "generator_loss"} in names
    assert {"student_loss", "student_lr"} in names


def test_rounds_that_do_not_reach_their_labels_stay_out_of_the_bank():
    run = SmallRun(CONFIG.model_copy(update={"drop_failed_rounds": True}))
    assert run.go_on()
    losses = [event.values["ce"] for event in run.of(MetricsEvent) if "ce" in event.values]
    reached = [loss < math.log(4) for loss in losses]
    assert set(reached) == {True, False}
    kept = sum(reached) if reached[0] else 1 + sum(reached[1:])  # something must be in the bank
    assert run.method.bank.added == kept * CONFIG.synthesis_batch_size


def test_progress_rises_to_1_and_counts_every_step():
    run = SmallRun()
    run.go_on()
    fractions = [event.fraction for event in run.of(ProgressEvent)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert len(fractions) == 2 * 2 + 2 * 2 * 2 + 2 * 4
    assert run.of(ProgressEvent)[-1].eta_seconds == pytest.approx(0)
    assert {event.epoch for event in run.of(ProgressEvent)} == {1, 2, 3}


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_same_seed_gives_bitwise_the_same_student(precision: str):
    config = CONFIG.model_copy(update={"precision": precision})
    first, again, other = SmallRun(config), SmallRun(config), SmallRun(config, seed=1)
    for run in (first, again, other):
        run.go_on()
    assert same(first.weights(), again.weights())
    assert not same(first.weights(), other.weights())


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6, 9, 12, 13, 16, 19])
def test_a_stopped_run_resumes_to_bitwise_the_same_student(stop_after: int, tmp_path: Path):
    whole = SmallRun()
    whole.go_on()
    stopped = SmallRun()
    folder = CheckpointFolder(tmp_path)
    assert not stopped.go_on(checkpoints=folder, should_stop=after(stop_after))
    assert len(stopped.of(CheckpointEvent)) == 1
    resumed = SmallRun(seed=7)  # whatever it starts from, the checkpoint decides
    resumed.run.resume(CheckpointFolder(tmp_path))
    assert resumed.go_on()
    assert same(whole.weights(), resumed.weights())
    assert torch.equal(whole.method.bank.images, resumed.method.bank.images)
    assert resumed.of(ProgressEvent)[-1].fraction == pytest.approx(1)


def test_the_random_numbers_of_dropout_are_resumed(tmp_path: Path):
    whole, stopped, resumed = SmallRun(), SmallRun(), SmallRun()
    for run in (whole, stopped, resumed):
        run.student.register_forward_hook(lambda layer, _, out: functional.dropout(out, 0.5, layer.training))
    torch.manual_seed(7)
    whole.go_on()
    torch.manual_seed(7)
    stopped.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(16))
    torch.manual_seed(8)
    resumed.run.resume(CheckpointFolder(tmp_path))
    resumed.go_on()
    assert same(whole.weights(), resumed.weights())


@pytest.mark.parametrize("stop_after", [3, 10, 11, 12, 53, 54])
def test_a_resumed_run_has_reported_what_the_whole_run_reports(stop_after: int, tmp_path: Path):
    config = CONFIG.model_copy(update={"student_steps": 45})  # a loss is the mean over three steps
    whole, stopped, resumed = SmallRun(config), SmallRun(config), SmallRun(config)
    whole.go_on()
    stopped.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(stop_after))
    resumed.run.resume(CheckpointFolder(tmp_path))
    resumed.go_on()
    reported = [[(e.epoch, e.step, e.values) for e in run.run.reported] for run in (whole, resumed)]
    assert reported[0] == reported[1]


def test_a_checkpoint_of_another_version_of_the_program_is_refused(tmp_path: Path):
    small_run = SmallRun()
    small_run.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(9))
    facts = small_run.run.state().facts
    olders = [
        {name: fact for name, fact in facts.items() if name != missing_name}
        for missing_name in ("method", "format")
    ]
    for older in (*olders, facts | {"format": FORMAT - 1}):
        CheckpointFolder(tmp_path).save(small_run.run.state().tensors, older, small_run.method.bank)
        with pytest.raises(TrainingError) as refused:
            SmallRun().run.resume(CheckpointFolder(tmp_path))
        assert refused.value.code == ErrorCode.CHECKPOINT_INVALID


def test_checkpointing_does_not_change_the_student(tmp_path: Path):
    plain, small_run = SmallRun(), SmallRun()
    plain.go_on()
    small_run.go_on(checkpoints=CheckpointFolder(tmp_path), checkpoint_seconds=0)
    assert len(small_run.of(CheckpointEvent)) >= 10
    assert same(plain.weights(), small_run.weights())


def test_loading_skips_a_damaged_generation(tmp_path: Path):
    whole, small_run = SmallRun(), SmallRun()
    whole.go_on()
    small_run.go_on(checkpoints=CheckpointFolder(tmp_path), checkpoint_seconds=0)
    newest = max(tmp_path.glob("state-*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    resumed = SmallRun()
    resumed.run.resume(CheckpointFolder(tmp_path))
    assert resumed.method.position.epoch < 3
    resumed.go_on()
    assert same(whole.weights(), resumed.weights())


def test_two_older_generations_and_no_superfluous_file_are_kept(tmp_path: Path):
    small_run = SmallRun(CONFIG.model_copy(update={"bank_capacity": 20}))
    small_run.go_on(checkpoints=CheckpointFolder(tmp_path), checkpoint_seconds=0)
    assert len(list(tmp_path.glob("state-*.json"))) == 3
    assert len(list(tmp_path.glob("bank-*"))) == 2
    assert not list(tmp_path.glob(".*"))


def test_without_a_whole_generation_the_resume_is_refused(tmp_path: Path):
    small_run = SmallRun()
    small_run.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(9))
    for path in tmp_path.glob("bank-*"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainingError) as refused:
        SmallRun().run.resume(CheckpointFolder(tmp_path))
    assert refused.value.code == ErrorCode.CHECKPOINT_INVALID


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path):
    small_run = SmallRun()
    small_run.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(9))
    other = SmallRun(CONFIG.model_copy(update={"temperature": 3.0}))
    with pytest.raises(TrainingError) as refused:
        other.run.resume(CheckpointFolder(tmp_path))
    assert refused.value.code == ErrorCode.CHECKPOINT_INVALID


def test_a_run_that_diverges_says_so():
    run = SmallRun(CONFIG.model_copy(update={"student_lr": 10.0, "student_steps": 60, "epochs": 4}))
    with torch.no_grad():
        next(run.student.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError) as diverged:
        run.go_on()
    assert diverged.value.code == ErrorCode.DIVERGED
    assert "student_lr" in diverged.value.hint


def test_a_teacher_without_batch_norm_has_no_bn_term():
    run = SmallRun(teacher="lenet5")
    run.go_on()
    assert not any("bn" in event.values for event in run.of(MetricsEvent))


def test_synthesis_leaves_the_students_statistics_alone():
    run = SmallRun()
    before = run.weights()
    run.make_round(0, run.student)
    assert same(before, run.weights())
    assert run.student.training
    assert all(parameter.requires_grad for parameter in run.student.parameters())


def test_more_classes_than_images_in_a_round():
    config = CONFIG.model_copy(update={"synthesis_batch_size": 3})
    run = SmallRun(config)
    assert run.go_on()
    assert run.method.bank.labels.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("last_steps", "expected"), [(0, 1), (1, 1), (2, 2), (5, 2)])
def test_images_of_the_last_steps_are_kept(last_steps: int, expected: int):
    run = SmallRun(CONFIG.model_copy(update={"images_of_last_steps": last_steps}))
    assert run.go_on()
    assert run.method.bank.added == plan_run(run.run.config).images == 60 * expected
    assert len(run.method.bank) == 60 * expected


@pytest.mark.parametrize(
    "values",
    [
        {"generator_input": "one_hot"},
        {"generator_input": "noise", "noisy_layer": "none"},
        {"generator_input": "concat", "noisy_layer": "none"},
        {"noisy_layer": "one_to_one"},
        {"noisy_layer_redraw": False},
        {"noisy_layer_architecture": "A8"},
    ],
)
def test_ablations_stop_and_resume_bit_by_bit_too(values: dict[str, object], tmp_path: Path):
    config = CONFIG.model_copy(update=values)
    whole, stopped, resumed = SmallRun(config), SmallRun(config), SmallRun(config)
    whole.go_on()
    stopped.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(7))
    resumed.run.resume(CheckpointFolder(tmp_path))
    resumed.go_on()
    assert same(whole.weights(), resumed.weights())


def test_fp16_scales_its_losses():
    run = SmallRun(CONFIG.model_copy(update={"precision": "fp16"}))
    assert run.go_on()
    assert run.method.trainer.optimizer.facts()["scale"] > 1
