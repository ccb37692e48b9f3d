"""The authors' procedure runs, with its oddities, on networks of a few weights."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.published.image_folder import ImageFolder
from benchmarks.published.procedure import Procedure, ProcedureSettings
from nayer_core.networks.registry import build

SIZE = (3, 16, 16)
TWO_ROUNDS = ProcedureSettings(
    epochs=1,
    warmup_epochs=1,
    warmup_rounds_per_epoch=2,
    rounds_per_epoch=2,
    generator_steps=2,
    student_steps=2,
    synthesis_batch_size=7,
    student_batch_size=8,
)


def network() -> nn.Module:
    return build("wrn_10_1", num_classes=3, input_size=SIZE)


@pytest.fixture
def procedure(tmp_path: Path) -> Procedure:
    torch.manual_seed(0)
    teacher = network().eval()
    half = (0.5, 0.5, 0.5)
    return Procedure(teacher, network(), torch.randn(3, 8), half, half, 16, TWO_ROUNDS, tmp_path, 0)


def test_the_published_procedure_runs_to_its_end_and_keeps_every_image(
    procedure: Procedure, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in procedure.student.state_dict().items()}
    outcome = procedure.run(lambda: 0.25, lambda _: None, math.inf)
    assert outcome.complete
    assert outcome.accuracies == [0.25]
    assert outcome.best == 0.25
    assert len(list(tmp_path.glob("*.png"))) == 4 * 7
    assert len(ImageFolder(tmp_path, (0.5,) * 3, (0.5,) * 3, 16)) == 4 * 7
    after = procedure.student.state_dict()
    assert all((after[name] != before[name]).any() for name, _ in procedure.student.named_parameters())


def test_the_run_stops_at_its_time_limit(procedure: Procedure) -> None:
    outcome = procedure.run(lambda: 0.25, lambda _: None, 0.0)
    assert not outcome.complete
    assert outcome.accuracies == []
    assert procedure.rounds_done == 1


def test_the_student_trains_through_synthesis_from_the_second_round_on(procedure: Procedure) -> None:
    modes = []
    procedure.student.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    procedure.run(lambda: 0.0, lambda _: None, math.inf)
    synthesis = modes[: 2 * TWO_ROUNDS.generator_steps]
    assert synthesis == [False, False, True, True]


def test_gradients_of_the_teacher_add_up_and_hooks_stay(procedure: Procedure) -> None:
    procedure.run(lambda: 0.0, lambda _: None, math.inf)
    assert all(parameter.grad is not None for parameter in procedure.teacher.parameters())
    before = procedure.hooks[0].latest[0].clone()
    procedure.teacher(torch.zeros(2, *SIZE))
    assert not torch.equal(procedure.hooks[0].latest[0], before)


def test_statistics_of_later_rounds_are_a_tenth_of_what_is_compared(procedure: Procedure) -> None:
    hook = procedure.hooks[0]
    layer = next(layer for layer in procedure.teacher.modules() if isinstance(layer, nn.BatchNorm2d))
    images = torch.rand(4, layer.num_features, 5, 5)

    def plain(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return (layer.running_mean - mean).norm() + (layer.running_var - variance).norm()

    layer(images)
    mean, variance = images.mean((0, 2, 3)), images.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(hook.distance, plain(mean, variance))
    hook.end_round()
    layer(2 * images)
    torch.testing.assert_close(hook.distance, plain(1.1 * mean, 1.3 * variance))
