"""Which batches a full device would have room for: found by trying, not by a formula.

What an allocator, a convolution's workspace and other processes take is known to the device alone.
"""

from collections.abc import Callable, Iterable

from nayer_core.hardware.device_memory import DeviceFull, do_within_memory, give_back_unused
from nayer_core.methods.nayer.algorithm import Distillation
from nayer_core.running.adaptation import SMALLEST_BATCH

PROBED_STEPS = 2  # the second meets what the optimiser has allocated in the first


def batches_that_fit(run: Distillation) -> tuple[int, int] | None:
    """Halve the batches until steps of both kinds fit; the run is not to be used afterwards.

    Args:
        run: whose present step found no memory.

    Returns:
        Sizes of synthesis and student batches; None where not even the smallest fit.
    """
    config, part = run.config_in_force, run.part
    synthesis = _first(_halves(config.synthesis_batch_size, part == "synthesis"), run, _a_round)
    if synthesis is None:
        return None
    student = _first(_halves(config.student_batch_size, part == "student"), run, _student_steps)
    return None if student is None else (synthesis, student)


def _a_round(run: Distillation, size: int) -> None:
    """The dearest kind, against the student; its images go to the bank for the student's steps."""
    few = {"synthesis_batch_size": size, "generator_steps": PROBED_STEPS}
    run.synthesizer.adopt(run.config_in_force.model_copy(update=few))
    run.synthesizer.redraw_generator()
    made = run.synthesizer.run_round(0, run.student)
    run.bank.add(made.images, made.labels)


def _student_steps(run: Distillation, size: int) -> None:
    run.trainer.adopt(run.config_in_force.model_copy(update={"student_batch_size": size}))
    for _ in range(PROBED_STEPS):
        run.trainer.step(run.bank)


def _halves(size: int, is_too_large: bool) -> Iterable[int]:
    size = size // 2 if is_too_large else size
    while size >= SMALLEST_BATCH:
        yield size
        size //= 2


def _first(
    sizes: Iterable[int], run: Distillation, some_steps: Callable[[Distillation, int], None]
) -> int | None:
    for size in sizes:
        try:
            do_within_memory(lambda size=size: some_steps(run, size))  # type: ignore[misc]  # bound now
        except DeviceFull:
            give_back_unused(run.arithmetic.device)
        else:
            return size
    return None
