"""Time saved on a GPU by recording a step's kernels: the same steps recorded, and launched one by one.

    python -m benchmarks.recorded_steps

ResNet-20 -> WRN-16-1, at the batches of `balanced` and of the paper; milliseconds a step, median of five
times 20 steps. Needs CUDA and ../shared/data.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import cifar10, machine
from benchmarks.runs import PreparedRun
from nayer_core.hardware.precision import compute_repeatably

STEPS = 20
PRESETS = ("balanced", "paper-cifar10")


def main() -> None:
    """Print one table, and with it where the GPU's time goes."""
    cifar10.require_data()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device.")
    compute_repeatably()  # as the program does
    print(machine.describe(), flush=True)
    print("| | warm-up step | generator step | student step | memory MB |\n|---|---|---|---|---|")
    for preset in PRESETS:
        plain = _run(preset, records=False)
        print(f"| {preset}, launched one by one | {_times(plain)} |", flush=True)
        _print_kernels(plain)
        del plain
        torch.cuda.empty_cache()
        print(f"| {preset}, recorded | {_times(_run(preset, records=True))} |", flush=True)


def _run(preset: str, *, records: bool) -> PreparedRun:
    run = cifar10.prepare(preset, {"generator_steps": STEPS}, "gaussian", 0)
    run.machine.graphs.enabled = records
    run.method.synthesizer.redraw_generator()
    torch.cuda.reset_peak_memory_stats()
    _warm_up(run)
    return run


def _warm_up(run: PreparedRun) -> None:
    for kind in _kinds(run):
        kind()


def _kinds(run: PreparedRun) -> tuple[Callable[[], None], ...]:
    def student_steps() -> None:
        for _ in range(STEPS):
            run.method.trainer.step(run.method.bank)

    def round_against(student: Any) -> None:
        result = run.make_round(0, student)
        run.method.bank.add(result.images, result.labels)

    return (lambda: round_against(None), lambda: round_against(run.method.trainer.student), student_steps)


def _times(run: PreparedRun) -> str:
    cells = []
    for kind in _kinds(run):
        seconds = []
        kind()
        for _ in range(5):
            torch.cuda.synchronize()
            start = time.perf_counter()
            kind()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        cells.append(f"{1000 * statistics.median(seconds) / STEPS:.2f}")
    return " | ".join([*cells, f"{torch.cuda.max_memory_reserved() / 1e6:.0f}"])


def _print_kernels(run: PreparedRun) -> None:
    for name, kind in zip(("generator step", "student step"), _kinds(run)[1:], strict=True):
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            kind()
            torch.cuda.synchronize()
        rows = sorted(profiler.key_averages(), key=lambda row: -row.self_device_time_total)
        busy = sum(row.self_device_time_total for row in rows) / STEPS / 1000
        count = sum(row.count for row in rows) / STEPS
        print(f"{name}: {busy:.2f} ms of kernels, {count:.0f} of them; the dearest:")
        for row in rows[:14]:
            share = row.self_device_time_total / STEPS / 1000
            print(f"  {share:.3f} ms x{row.count / STEPS:.0f} {row.key[:90]}")


if __name__ == "__main__":
    main()
