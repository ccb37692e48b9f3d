"""Runs that find no memory: halved batches where they are wanted, sizes that fit where they are not."""

import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import WarningEvent
from nayer_core.hardware.device_memory import DeviceFull, do_within_memory, give_back_unused, is_out_of_memory
from nayer_core.running.adaptation import MOST_HALVINGS
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.method import result_of
from nayer_core.running.recovery import Recovery
from tests.support.small_runs import CONFIG, CPU, SmallRun, after, same

LARGE = CONFIG.model_copy(update={"synthesis_batch_size": 64, "student_batch_size": 96})


def limit(run: SmallRun, *, synthesis: int = 10**6, student: int = 10**6, from_step: int = 0) -> None:
    """Let larger batches than these find no memory, in the middle of their step."""
    synthesizer, trainer = run.method.synthesizer, run.method.trainer
    make, step = synthesizer.run_round, trainer.step

    def limited_round(index, student_network):
        steps = make(index, student_network)
        yield next(steps)
        if synthesizer.config.synthesis_batch_size > synthesis:
            raise torch.OutOfMemoryError("the test's device is full")
        return (yield from steps)

    def limited_step(bank):
        loss = step(bank)
        if trainer.config.student_batch_size > student and trainer.steps_done > from_step:
            torch.empty(2**60)  # what torch's own allocator says of it is part of the test
        return loss

    synthesizer.run_round, trainer.step = limited_round, limited_step


def halvings(run: SmallRun) -> list[str]:
    return [event.message for event in run.of(WarningEvent) if event.code == "batch_halved"]


def test_errors_of_memory_are_recognised_and_others_are_not():
    with pytest.raises(RuntimeError) as of_the_allocator:
        torch.empty(2**60)
    assert is_out_of_memory(of_the_allocator.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ..."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


def test_the_error_of_a_full_device_holds_no_tensors():
    with pytest.raises(DeviceFull) as full:
        do_within_memory(lambda: torch.empty(2**60))
    assert full.value.__context__ is None
    with pytest.raises(ZeroDivisionError):
        do_within_memory(lambda: 1 / 0)


def test_a_failed_step_leaves_no_memory_on_the_device():
    """In the forward pass or, where torch keeps what was still to do, in the backward pass."""
    run = SmallRun(LARGE)
    synthesizer = run.method.synthesizer
    before = tensors_alive()
    for network in (synthesizer.teacher, synthesizer.generator):
        convolution = [part for part in network.modules() if isinstance(part, nn.Conv2d)][-1]
        for register in (convolution.register_forward_pre_hook, convolution.register_full_backward_pre_hook):
            hook = register(lambda *_: torch.empty(2**60))
            with pytest.raises(DeviceFull):
                do_within_memory(lambda: result_of(synthesizer.run_round(0, run.student)))
            hook.remove()
            give_back_unused(CPU)
            assert tensors_alive() - before < 2**18


def tensors_alive() -> int:
    """Bytes of all tensors that Python knows."""
    gc.collect()
    live_tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, nn.Parameter)]
    return sum(tensor.numel() * tensor.element_size() for tensor in live_tensors)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(tmp_path: Path):
    run = SmallRun(LARGE)
    limit(run, synthesis=20, student=24)
    assert Recovery(run.run, CheckpointFolder(tmp_path), "halve").go_on(checkpoint_seconds=0)
    force = run.run.config_in_force
    assert (force.synthesis_batch_size, force.student_batch_size) == (16, 24)
    assert (force.student_lr, force.generator_lr) == (LARGE.student_lr, LARGE.generator_lr)
    assert run.run.config == LARGE
    assert len(halvings(run)) == 4
    assert "synthesis_batch_size 64" in halvings(run)[0]
    assert "goes on with 32" in halvings(run)[0]
    assert list(run.run.adaptation.history) == halvings(run)


def test_a_run_halved_at_its_first_step_equals_one_with_half_the_batch():
    small, halved = SmallRun(LARGE.model_copy(update={"synthesis_batch_size": 32})), SmallRun(LARGE)
    small.go_on()
    limit(halved, synthesis=32)
    Recovery(halved.run, on_out_of_memory="halve").go_on()
    assert same(small.weights(), halved.weights())


@pytest.mark.parametrize("stop_after", [10, 11, 13, 19])
def test_a_resumed_run_keeps_the_halved_sizes_bit_by_bit(stop_after: int, tmp_path: Path):
    whole, stopped, resumed = SmallRun(LARGE), SmallRun(LARGE), SmallRun(LARGE, seed=7)
    for run in (whole, stopped):
        # The stop comes before or behind a memory that runs out late in the student's steps.
        limit(run, student=50, from_step=1)
        stop = after(stop_after) if run is stopped else after(1000)
        folder = CheckpointFolder(tmp_path / str(run is whole))
        done = Recovery(run.run, folder, "halve").go_on(checkpoint_seconds=0, should_stop=stop)
        assert done is (run is whole)
    folder = CheckpointFolder(tmp_path / "False")
    recovery = Recovery(resumed.run, folder, "halve")
    resumed.run.resume(folder)
    limit(resumed, student=50, from_step=1)
    assert recovery.go_on(checkpoint_seconds=0)
    assert resumed.run.config_in_force.student_batch_size == 48
    assert same(whole.weights(), resumed.weights())


def test_with_fail_the_error_names_sizes_that_fit():
    run = SmallRun(LARGE)
    limit(run, synthesis=20, student=24)
    with pytest.raises(TrainingError) as full:
        Recovery(run.run).go_on()
    assert full.value.code == ErrorCode.DEVICE_OUT_OF_MEMORY
    assert "synthesis_batch_size 64, student_batch_size 96" in full.value.message
    assert "config.synthesis_batch_size to 16 and config.student_batch_size to 24" in full.value.hint
    assert run.of(WarningEvent) == []


def test_a_part_that_was_not_at_fault_keeps_its_size():
    run = SmallRun(LARGE)
    limit(run, student=24, from_step=2)
    with pytest.raises(TrainingError) as full:
        Recovery(run.run).go_on()
    assert "config.synthesis_batch_size to 64 and config.student_batch_size to 24" in full.value.hint


def test_if_nothing_fits_the_error_names_no_size():
    run = SmallRun(LARGE)
    limit(run, student=1)
    with pytest.raises(TrainingError) as full:
        Recovery(run.run).go_on()
    assert "No smaller batch fits" in full.value.hint


def test_a_batch_is_halved_four_times_at_most(tmp_path: Path):
    run = SmallRun(LARGE)
    limit(run, student=5)
    with pytest.raises(TrainingError) as full:
        Recovery(run.run, CheckpointFolder(tmp_path), "halve").go_on()
    assert len(halvings(run)) == MOST_HALVINGS == 4
    assert full.value.code == ErrorCode.DEVICE_OUT_OF_MEMORY
    assert "config.student_batch_size to 3" in full.value.hint


def test_a_full_device_during_measurement_halves_no_batch(tmp_path: Path):
    run = SmallRun()
    with pytest.raises(TrainingError) as full:
        Recovery(run.run, on_out_of_memory="halve").go_on(after_epoch=lambda: torch.empty(2**60))
    assert "measured" in full.value.message
    assert run.of(WarningEvent) == []


@pytest.mark.parametrize(
    "values",
    [
        {"generator_input": "noise", "noisy_layer": "none"},
        {"generator_input": "concat", "noisy_layer": "none"},
        {"generator_input": "sum"},
        {"noisy_layer": "one_to_one"},
        {"noisy_layer_redraw": False},
        {"noisy_layer": "one_to_one", "noisy_layer_redraw": False},
        {"noisy_layer_architecture": "A4"},
    ],
)
def test_ablations_go_on_with_halved_batches_too(values: dict[str, object], tmp_path: Path):
    run = SmallRun(LARGE.model_copy(update=values))
    rounds: list[int] = []
    limit(run, synthesis=64)
    make = run.method.synthesizer.run_round

    def full_later(index, *args):
        rounds.append(index)
        if run.method.synthesizer.config.synthesis_batch_size > 32 and index == 2:
            raise torch.OutOfMemoryError("the test's device is full")
        return (yield from make(index, *args))

    run.method.synthesizer.run_round = full_later
    assert Recovery(run.run, CheckpointFolder(tmp_path), "halve").go_on(checkpoint_seconds=0)
    assert rounds == [0, 1, 2, 2, 3, 4, 5]
    assert [segment.length for segment in run.method.bank.segments] == [64, 64, 32, 32, 32, 32]
