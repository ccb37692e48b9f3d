"""Recorded steps do what the steps do; only a machine with CUDA can record any."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nayer_core.contract.config import DistillConfig
from nayer_core.hardware import cuda_graphs as module
from nayer_core.hardware.cuda_graphs import CudaGraphs
from nayer_core.hardware.precision import Arithmetic
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.recovery import Recovery
from tests.support.small_runs import CONFIG, CPU, SmallRun, after, same

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
LONGER = CONFIG.model_copy(
    update={"generator_steps": 5, "student_steps": 9, "epochs": 3, "attention_weight": 2.0}
)


def recorded(run: SmallRun) -> int:
    return len(run.machine.graphs)


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # as the program does


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs as they would be on a device that records nothing."""

    def run(config: DistillConfig) -> SmallRun:
        with monkeypatch.context() as patched:
            patched.setattr(module, "UNRECORDED_RUNS", 10**9)
            run = SmallRun(config, device=CUDA)
            run.go_on()
        return run

    return run


def test_on_the_cpu_no_step_is_recorded():
    graphs = CudaGraphs(Arithmetic(CPU, torch.float32), torch.Generator(), num_processes=1)
    inputs: list[torch.Tensor] = []
    for value in range(5):
        scalar = torch.tensor(float(value))
        assert graphs.run("kind", lambda x: inputs.append(x) or x + 1, (scalar,), ()) == value + 1
        assert inputs[-1] is scalar


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_run_is_bitwise_the_run(precision: Any, unrecorded: Any):
    config = LONGER.model_copy(update={"precision": precision})
    run = SmallRun(config, device=CUDA)
    run.go_on()
    assert recorded(run) == 5  # warm-up with and without an average, the student's part, CutMix or none
    plain = unrecorded(config)
    assert recorded(plain) == 0
    assert same(run.weights(), plain.weights())
    assert torch.equal(run.method.bank.images, plain.method.bank.images)
    assert [event.values for event in run.run.reported] == [event.values for event in plain.run.reported]


@needs_cuda
@pytest.mark.parametrize("values", [{"generator_input": "sum"}, {"noisy_layer_architecture": "A8"}])
def test_ablations_are_recorded_too(values: dict[str, Any], unrecorded: Any):
    config = LONGER.model_copy(update=values)
    run = SmallRun(config, device=CUDA)
    run.go_on()
    assert same(run.weights(), unrecorded(config).weights())


@needs_cuda
def test_a_run_with_procedural_images_is_recorded_too(monkeypatch: pytest.MonkeyPatch):
    config = LONGER.model_copy(update={"procedural_share": 0.5})
    recorded_run = SmallRun(config, teacher="lenet5", device=CUDA)
    recorded_run.go_on()
    monkeypatch.setattr(module, "UNRECORDED_RUNS", 10**9)
    plain = SmallRun(config, teacher="lenet5", device=CUDA)
    plain.go_on()
    assert recorded(recorded_run) > 0
    assert recorded(plain) == 0
    assert same(recorded_run.weights(), plain.weights())


@needs_cuda
@pytest.mark.parametrize("stop_after", [3, 24, 40, 55])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(stop_after: int, tmp_path: Path):
    whole = SmallRun(LONGER, device=CUDA)
    whole.go_on()
    first = SmallRun(LONGER, device=CUDA)
    folder = CheckpointFolder(tmp_path)
    assert not first.go_on(checkpoints=folder, should_stop=after(stop_after))
    second = SmallRun(LONGER, seed=9, device=CUDA)
    second.run.resume(folder)
    assert second.go_on(checkpoints=folder)
    assert same(second.weights(), whole.weights())


@needs_cuda
def test_float16_is_not_recorded():
    run = SmallRun(LONGER.model_copy(update={"precision": "fp16"}), device=CUDA)
    run.go_on()
    assert recorded(run) == 0


@needs_cuda
@pytest.mark.parametrize("part", ["synthesis", "student"])
def test_a_batch_that_does_not_fit_is_halved_on_a_device_that_is_really_full(part: str, tmp_path: Path):
    size = f"{part}_batch_size"
    config = CONFIG.model_copy(update={size: 64_000, "bank_capacity": 64_000})
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 * 6 / total)
    try:
        run = SmallRun(config, device=CUDA)
        assert Recovery(run.run, CheckpointFolder(tmp_path), "halve").go_on()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    in_force = run.run.config_in_force.model_dump()
    assert in_force[size] < 64_000
    assert torch.isfinite(next(iter(run.weights().values()))).all()


@needs_cuda
def test_garbage_collection_does_not_abort_a_recording():
    for _ in range(3):
        run = SmallRun(LONGER, device=CUDA)
        run.go_on()
        run.itself = run  # type: ignore[attr-defined] # found unused by the collector alone
