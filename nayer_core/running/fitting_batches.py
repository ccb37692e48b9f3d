"""Batch sizes that fit a full device, found by trial.

No formula knows the memory of an allocator, of a convolution's workspace and of other processes.
"""

from collections.abc import Iterable

from nayer_core.hardware.device_memory import DeviceFull, do_within_memory, give_back_unused
from nayer_core.running.adaptation import SMALLEST_BATCH
from nayer_core.running.run import Run


def batches_that_fit(run: Run) -> dict[str, int] | None:
    """Halve the batches until all kinds of steps fit; the run is not used afterwards.

    Args:
        run: its present step ran out of memory.

    Returns:
        A size for each batch, by its field of the configuration; None if not even the smallest sizes fit.
    """
    config, too_large = run.config_in_force, run.plan.steps[run.method.next_kind].batch
    fitting: dict[str, int] = {}
    for batch in config.BATCH_SIZES:
        size = _first_that_fits(run, batch, _halves(getattr(config, batch), batch == too_large))
        if size is None:
            return None
        fitting[batch] = size
    return fitting


def _halves(size: int, is_too_large: bool) -> Iterable[int]:
    size = size // 2 if is_too_large else size
    while size >= SMALLEST_BATCH:
        yield size
        size //= 2


def _first_that_fits(run: Run, batch: str, sizes: Iterable[int]) -> int | None:
    for size in sizes:
        run.machine.graphs.forget()  # shapes have changed
        try:
            do_within_memory(lambda size=size: run.method.probe(batch, size))  # type: ignore[misc]  # bound now
        except DeviceFull:
            give_back_unused(run.machine.device)
        else:
            return size
    return None
