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
from nayer_core.running.recovery import Recovery
from tests.support.small_runs import CONFIG, CPU, Run, after, same

LARGE = CONFIG.model_copy(update={"synthesis_batch_size": 64, "student_batch_size": 96})


def limit(run: Run, *, synthesis: int = 10**6, student: int = 10**6, from_step: int = 0) -> None:
    """Let larger batches than these find no memory, in the middle of their step."""
    synthesizer, trainer = run.distillation.synthesizer, run.distillation.trainer
    make, step = synthesizer.run_round, trainer.step

    def limited_round(index, student_network, after_step=lambda: None):
        def full():
            after_step()
            if synthesizer.config.synthesis_batch_size > synthesis:
                raise torch.OutOfMemoryError("the test's device is full")

        return make(index, student_network, full)

    def limited_step(bank):
        loss = step(bank)
        if trainer.config.student_batch_size > student and trainer.steps_done > from_step:
            torch.empty(2**60)  # what torch's own allocator says of it is part of the test
        return loss

    synthesizer.run_round, trainer.step = limited_round, limited_step


def halvings(run: Run) -> list[str]:
    return [event.message for event in run.of(WarningEvent) if event.code == "batch_halved"]


def test_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as of_the_allocator:
        torch.empty(2**60)
    assert is_out_of_memory(of_the_allocator.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ..."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


def test_the_error_that_filled_the_device_holds_nothing_any_more():
    with pytest.raises(DeviceFull) as full:
        do_within_memory(lambda: torch.empty(2**60))
    assert full.value.__context__ is None
    with pytest.raises(ZeroDivisionError):
        do_within_memory(lambda: 1 / 0)


def test_a_step_that_broke_off_leaves_nothing_on_the_device():
    """In the forward pass or, where torch keeps what was still to do, in the backward pass."""
    run = Run(LARGE)
    synthesizer = run.distillation.synthesizer
    before = tensors_alive()
    for network in (synthesizer.teacher, synthesizer.generator):
        convolution = [part for part in network.modules() if isinstance(part, nn.Conv2d)][-1]
        for register in (convolution.register_forward_pre_hook, convolution.register_full_backward_pre_hook):
            hook = register(lambda *_: torch.empty(2**60))
            with pytest.raises(DeviceFull):
                do_within_memory(lambda: synthesizer.run_round(0, run.student))
            hook.remove()
            give_back_unused(CPU)
            assert tensors_alive() - before < 2**18


def tensors_alive() -> int:
    """Bytes of all tensors that Python knows."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, nn.Parameter)]
    return sum(tensor.numel() * tensor.element_size() for tensor in found)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(tmp_path: Path):
    run = Run(LARGE)
    limit(run, synthesis=20, student=24)
    assert Recovery(run.distillation, CheckpointFolder(tmp_path), "halve").run(checkpoint_seconds=0)
    force = run.distillation.config_in_force
    assert (force.synthesis_batch_size, force.student_batch_size) == (16, 24)
    assert (force.student_lr, force.generator_lr) == (LARGE.student_lr, LARGE.generator_lr)
    assert run.distillation.config == LARGE
    assert len(halvings(run)) == 4
    assert "synthesis_batch_size 64" in halvings(run)[0]
    assert "goes on with 32" in halvings(run)[0]
    assert list(run.distillation.adaptation.history) == halvings(run)


def test_a_run_halved_at_once_is_the_one_that_asked_for_half():
    asked, halved = Run(LARGE.model_copy(update={"synthesis_batch_size": 32})), Run(LARGE)
    asked.distillation.run()
    limit(halved, synthesis=32)
    Recovery(halved.distillation, on_out_of_memory="halve").run()
    assert same(asked.weights(), halved.weights())


@pytest.mark.parametrize("stop_after", [10, 11, 13, 19])
def test_a_resumed_run_keeps_the_halved_sizes_bit_by_bit(stop_after: int, tmp_path: Path):
    whole, stopped, resumed = Run(LARGE), Run(LARGE), Run(LARGE, seed=7)
    for run in (whole, stopped):
        # The stop comes before or behind a memory that runs out late in the student's steps.
        limit(run, student=50, from_step=1)
        stop = after(stop_after) if run is stopped else after(1000)
        folder = CheckpointFolder(tmp_path / str(run is whole))
        done = Recovery(run.distillation, folder, "halve").run(checkpoint_seconds=0, should_stop=stop)
        assert done is (run is whole)
    folder = CheckpointFolder(tmp_path / "False")
    recovery = Recovery(resumed.distillation, folder, "halve")
    resumed.distillation.resume(folder)
    limit(resumed, student=50, from_step=1)
    assert recovery.run(checkpoint_seconds=0)
    assert resumed.distillation.config_in_force.student_batch_size == 48
    assert same(whole.weights(), resumed.weights())


def test_what_would_fit_is_named_where_the_client_wants_the_end():
    run = Run(LARGE)
    limit(run, synthesis=20, student=24)
    with pytest.raises(TrainingError) as full:
        Recovery(run.distillation).run()
    assert full.value.code == ErrorCode.DEVICE_OUT_OF_MEMORY
    assert "64 (synthesis) and 96 (student)" in full.value.message
    assert "config.synthesis_batch_size to 16 and config.student_batch_size to 24" in full.value.hint
    assert run.of(WarningEvent) == []


def test_a_part_that_was_not_at_fault_keeps_its_size():
    run = Run(LARGE)
    limit(run, student=24, from_step=2)
    with pytest.raises(TrainingError) as full:
        Recovery(run.distillation).run()
    assert "config.synthesis_batch_size to 64 and config.student_batch_size to 24" in full.value.hint


def test_where_nothing_fits_no_size_is_named():
    run = Run(LARGE)
    limit(run, student=1)
    with pytest.raises(TrainingError) as full:
        Recovery(run.distillation).run()
    assert "No smaller batch fits" in full.value.hint


def test_a_batch_is_halved_four_times_at_most(tmp_path: Path):
    run = Run(LARGE)
    limit(run, student=5)
    with pytest.raises(TrainingError) as full:
        Recovery(run.distillation, CheckpointFolder(tmp_path), "halve").run()
    assert len(halvings(run)) == MOST_HALVINGS == 4
    assert full.value.code == ErrorCode.DEVICE_OUT_OF_MEMORY
    assert "config.student_batch_size to 3" in full.value.hint


def test_what_measuring_lacks_is_no_matter_of_batches(tmp_path: Path):
    run = Run()
    with pytest.raises(TrainingError) as full:
        Recovery(run.distillation, on_out_of_memory="halve").run(after_epoch=lambda: torch.empty(2**60))
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
    run = Run(LARGE.model_copy(update=values))
    rounds: list[int] = []
    limit(run, synthesis=64)
    make = run.distillation.synthesizer.run_round

    def full_later(index, *args):
        rounds.append(index)
        if run.distillation.synthesizer.config.synthesis_batch_size > 32 and index == 2:
            raise torch.OutOfMemoryError("the test's device is full")
        return make(index, *args)

    run.distillation.synthesizer.run_round = full_later
    assert Recovery(run.distillation, CheckpointFolder(tmp_path), "halve").run(checkpoint_seconds=0)
    assert rounds == [0, 1, 2, 2, 3, 4, 5]
    assert [segment.length for segment in run.distillation.bank.segments] == [64, 64, 32, 32, 32, 32]
