"""Runs that diverge or find no memory on the way: where they go back to, how they go on and end."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import CheckpointEvent, MetricsEvent, WarningEvent
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.method import require_finite
from nayer_core.running.recovery import Recovery
from tests.support.small_runs import CONFIG, SmallRun, after, same

EIGHT_EPOCHS = CONFIG.model_copy(update={"epochs": 8, "student_steps": 3, "generator_steps": 1})


def spoil_student(run: SmallRun, is_due: Callable[[int], bool]) -> None:
    """Put NaN into a weight behind each student step whose number (of the run's own) is due."""
    trainer = run.method.trainer
    step = trainer.step

    def spoiled(bank):
        loss = step(bank)
        if is_due(trainer.steps_done):
            with torch.no_grad():
                next(iter(run.student.parameters())).view(-1)[0] = torch.nan
        return loss

    trainer.step = spoiled


def once(number: int) -> Callable[[int], bool]:
    """Due at one step, the first time it is made."""
    remaining = [number]
    return lambda done: done in remaining and (remaining.clear() or True)


def spoil_generator(run: SmallRun, round_index: int) -> None:
    """Let the generator come out of a round, the first time it is made, with an infinite weight."""
    remaining = [round_index]
    make = run.method.synthesizer.run_round

    def spoiled(index, *args):
        embedded = yield from make(index, *args)
        if index in remaining:
            remaining.clear()
            with torch.no_grad():
                next(iter(run.method.synthesizer.generator.parameters())).view(-1)[0] = torch.inf
        return embedded

    run.method.synthesizer.run_round = spoiled


def warnings(run: SmallRun) -> list[str]:
    return [event.code for event in run.of(WarningEvent)]


def reported(run: SmallRun) -> list[tuple[int, int, dict[str, float]]]:
    return [(event.epoch, event.step, event.values) for event in run.run.reported]


@pytest.mark.parametrize("step", [1, 4, 6, 8])
def test_a_run_that_diverges_goes_back_and_ends_finite(step: int, tmp_path: Path):
    run = SmallRun()
    spoil_student(run, once(step))
    assert Recovery(run.run, CheckpointFolder(tmp_path)).go_on(checkpoint_seconds=0)
    require_finite(run.student.state_dict().values())
    assert warnings(run) == ["rolled_back"]
    assert run.run.adaptation.rollbacks == 1
    assert "student_lr" in run.run.reported[-1].values
    steps = [event.step for event in run.run.reported]
    assert steps == sorted(steps)


def test_without_a_checkpoint_a_diverged_run_equals_one_with_halved_rates():
    run = SmallRun()
    spoil_student(run, once(6))
    assert Recovery(run.run).go_on()
    rates = {name: getattr(CONFIG, name) / 2 for name in ("student_lr", "student_lr_min", "generator_lr")}
    small = SmallRun(CONFIG.model_copy(update=rates))
    small.go_on()
    assert same(small.weights(), run.weights())
    assert torch.equal(small.method.bank.images, run.method.bank.images)
    assert reported(small) == reported(run)


def test_a_generator_that_is_not_finite_leaves_no_image_behind(tmp_path: Path):
    config = CONFIG.model_copy(update={"images_of_last_steps": 2})
    run = SmallRun(config)
    spoil_generator(run, 3)
    assert Recovery(run.run, CheckpointFolder(tmp_path)).go_on(checkpoint_seconds=0)
    assert warnings(run) == ["rolled_back"]
    assert run.method.bank.added == 6 * 2 * 10
    assert [segment.start for segment in run.method.bank.segments] == [20 * n for n in range(6)]


def test_after_three_rollbacks_the_last_good_state_is_left(tmp_path: Path):
    run = SmallRun()
    spoil_student(run, lambda done: done == 5)
    with pytest.raises(TrainingError) as diverged:
        Recovery(run.run, CheckpointFolder(tmp_path)).go_on(checkpoint_seconds=0)
    assert diverged.value.code == ErrorCode.DIVERGED
    assert "3 times" in diverged.value.message
    assert warnings(run) == ["rolled_back"] * 3
    assert len(run.run.adaptation.history) == 3
    assert run.method.trainer.steps_done > 0
    require_finite(run.student.state_dict().values())


def test_each_rollback_to_the_same_place_looks_further_back(tmp_path: Path):
    run = SmallRun(EIGHT_EPOCHS)
    spoil_student(run, lambda done: done == 9)
    with pytest.raises(TrainingError):
        # Nothing is saved after a rollback: every one begins where the one before has led to nothing.
        Recovery(run.run, _Sparing(tmp_path, run)).go_on(checkpoint_seconds=0)
    places = [int(re.findall(r"to step (\d+)", entry)[0]) for entry in run.run.adaptation.history]
    assert len(places) == 3
    assert places[0] > places[1] > places[2]


class _Sparing(CheckpointFolder):
    """Writes what is due before the first rollback, and then only what rollbacks themselves save."""

    def __init__(self, path: Path, run: SmallRun):
        super().__init__(path)
        self.run = run
        self.returned = 0

    def save(self, tensors, facts, bank):
        rollbacks = facts["adaptation"]["rollbacks"]
        if rollbacks and rollbacks <= self.returned:
            return {}
        self.returned = rollbacks
        return super().save(tensors, facts, bank)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path):
    run, folder = SmallRun(), CheckpointFolder(tmp_path)
    run.go_on(checkpoints=folder, should_stop=after(9))
    before = sorted(path.name for path in tmp_path.iterdir())
    spoil_student(run, once(run.method.trainer.steps_done + 1))
    with pytest.raises(TrainingError) as diverged:  # the stop would save a state that has just become bad
        run.go_on(checkpoints=folder, should_stop=after(3))
    assert diverged.value.code == ErrorCode.DIVERGED
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_stop_while_the_state_is_bad_saves_a_good_one(tmp_path: Path):
    run = SmallRun()
    spoil_student(run, once(1))
    assert not Recovery(run.run, CheckpointFolder(tmp_path)).go_on(checkpoint_seconds=0, should_stop=after(9))
    resumed = SmallRun()
    resumed.run.resume(CheckpointFolder(tmp_path))
    assert resumed.run.adaptation.rollbacks == 1
    require_finite(resumed.weights().values())


@pytest.mark.parametrize("stop_after", [10, 11, 15, 19])
def test_a_run_resumed_after_a_rollback_is_bitwise_the_uninterrupted_one(stop_after: int, tmp_path: Path):
    whole, stopped, resumed = SmallRun(), SmallRun(), SmallRun(seed=7)
    for run, name in ((whole, "whole"), (stopped, "stopped")):
        spoil_student(run, once(2))
        stop = after(stop_after) if run is stopped else after(1000)
        recovery = Recovery(run.run, CheckpointFolder(tmp_path / name))
        assert recovery.go_on(checkpoint_seconds=0, should_stop=stop) is (run is whole)
    assert whole.run.adaptation.rollbacks == 1
    folder = CheckpointFolder(tmp_path / "stopped")
    recovery = Recovery(resumed.run, folder)
    resumed.run.resume(folder)
    assert recovery.go_on()
    assert same(whole.weights(), resumed.weights())
    assert resumed.run.adaptation == whole.run.adaptation
    assert reported(resumed) == reported(whole)


def test_a_resumed_run_knows_how_many_rollbacks_are_left(tmp_path: Path):
    stopped, resumed = SmallRun(), SmallRun()
    spoil_student(stopped, lambda done: done == 2 and stopped.run.adaptation.rollbacks < 2)
    recovery = Recovery(stopped.run, CheckpointFolder(tmp_path))
    assert not recovery.go_on(checkpoint_seconds=0, should_stop=after(16))
    assert stopped.run.adaptation.rollbacks == 2
    folder = CheckpointFolder(tmp_path)
    recovery = Recovery(resumed.run, folder)
    resumed.run.resume(folder)
    spoil_student(resumed, lambda done: done == 7)
    with pytest.raises(TrainingError):
        recovery.go_on(checkpoint_seconds=0)
    assert warnings(resumed) == ["rolled_back"]
    assert len(resumed.run.adaptation.history) == 3


def test_a_run_resumed_from_another_folder_can_roll_back_to_that_state(tmp_path: Path):
    stopped, resumed = SmallRun(), SmallRun()
    there, here = CheckpointFolder(tmp_path / "there"), CheckpointFolder(tmp_path / "here")
    stopped.go_on(checkpoints=there, should_stop=after(10))
    recovery = Recovery(resumed.run, here)
    resumed.run.resume(there)
    came_with = resumed.run.progress.steps_done
    spoil_student(resumed, once(resumed.method.trainer.steps_done + 1))
    assert recovery.go_on(checkpoint_seconds=1000)
    assert resumed.of(CheckpointEvent)[-1].step == came_with > 0
    assert not there.is_empty


def test_rates_are_halved_and_the_requested_configuration_is_unchanged(tmp_path: Path):
    plain, run = SmallRun(), SmallRun()
    plain.go_on()
    spoil_student(run, once(3))
    Recovery(run.run, CheckpointFolder(tmp_path)).go_on(checkpoint_seconds=0)
    rates = [
        [event.values["student_lr"] for event in one.of(MetricsEvent) if "student_lr" in event.values]
        for one in (plain, run)
    ]
    assert rates[1][-1] == pytest.approx(rates[0][-1] / 2)
    assert run.run.config == CONFIG
    assert run.method.synthesizer.config.generator_lr == CONFIG.generator_lr / 2
