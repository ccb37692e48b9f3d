"""What guides the images of a teacher without BatchNorm, and that such a job says so."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nayer_core.contract.config import MethodConfig
from nayer_core.contract.events import MetricsEvent, WarningEvent
from nayer_core.methods.parts.image_priors import (
    BATCH_NORM,
    INPUT_STATISTICS,
    PROCEDURAL_IMAGES,
    image_priors,
    input_statistics_distance,
    weight_of,
)
from nayer_core.networks.registry import build_on_meta
from nayer_core.running.checkpoint import CheckpointFolder
from tests.support import small_runs
from tests.support.small_runs import SmallRun, after, same

CONFIG = small_runs.CONFIG.model_copy(update={"procedural_share": 0.5})


def _images(mean: float, std: float) -> Tensor:
    noise = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean(dim=(0, 2, 3), keepdim=True)) / noise.std(dim=(0, 2, 3), keepdim=True)
    return mean + std * noise


def test_images_with_the_statistics_of_the_data_have_no_prior_loss():
    assert input_statistics_distance(_images(0, 1)).item() == pytest.approx(0, abs=1e-3)


def test_the_prior_adds_the_norms_of_means_and_variance_errors():
    assert input_statistics_distance(_images(2, 1)).item() == pytest.approx(2 * 3**0.5, rel=1e-3)
    assert input_statistics_distance(_images(0, 3)).item() == pytest.approx(8 * 3**0.5, rel=1e-3)


def test_the_gradient_of_the_prior_leads_images_to_the_statistics():
    images = _images(2, 0.5).requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(input_statistics_distance(images), images)
        images = (images - 300 * gradient).detach().requires_grad_()
    assert input_statistics_distance(images).item() < 0.2


def test_without_batch_norm_the_prior_is_a_term_and_with_it_it_is_not():
    terms = {}
    for teacher in ("lenet5", "wrn_10_1"):
        run = SmallRun(teacher=teacher)
        run.go_on()
        terms[teacher] = {name for event in run.of(MetricsEvent) for name in event.values}
    assert "prior" in terms["lenet5"]
    assert "bn" not in terms["lenet5"]
    assert "prior" not in terms["wrn_10_1"]


def test_the_prior_can_be_left_out():
    run = SmallRun(CONFIG.model_copy(update={"image_prior_weight": 0.0}), teacher="lenet5")
    run.go_on()
    assert not any("prior" in event.values for event in run.of(MetricsEvent))


def network(name: str) -> torch.nn.Module:
    return build_on_meta(name, num_classes=10, input_size=(3, 32, 32))


def test_a_teacher_is_given_the_priors_of_what_it_has():
    names = {name: [prior.name for prior in image_priors(network(name), CONFIG)] for name in TEACHERS}
    assert names == TEACHERS
    reasons = [prior.reason for name in TEACHERS for prior in image_priors(network(name), CONFIG)]
    assert reasons[0] == "7 BatchNorm layers remember statistics of the teacher's data."
    assert all("No BatchNorm" in reason for reason in reasons[1:])


TEACHERS = {
    "wrn_10_1": [BATCH_NORM],
    "lenet5": [INPUT_STATISTICS, PROCEDURAL_IMAGES],
    "timm/test_vit": [INPUT_STATISTICS, PROCEDURAL_IMAGES],
}


def test_a_prior_of_weight_0_is_left_out():
    config = CONFIG.model_copy(update={"procedural_share": 0.0, "image_prior_weight": 0.0})
    assert image_priors(network("lenet5"), config) == ()
    assert weight_of(PROCEDURAL_IMAGES, network("wrn_10_1"), CONFIG) == 0


def test_a_method_without_a_generator_has_only_the_share_of_images():
    priors = image_priors(network("lenet5"), MethodConfig(procedural_share=0.3))
    assert [(prior.name, prior.weight) for prior in priors] == [(PROCEDURAL_IMAGES, 0.3)]


@pytest.mark.parametrize(
    ("teacher", "share", "expected"), [("lenet5", 0.5, 6), ("lenet5", 1.0, 12), ("wrn_10_1", 0.5, 0)]
)
def test_a_share_of_the_students_images_is_procedural(teacher: str, share: float, expected: int):
    run = SmallRun(CONFIG.model_copy(update={"procedural_share": share}), teacher=teacher)
    images = torch.full_like(run.method.bank.images[:4], 77)
    run.method.bank.add(images, torch.zeros(4, dtype=torch.int64))
    drawn = run.method.trainer._batch_from(run.method.bank)
    assert len(drawn) == CONFIG.student_batch_size == 12
    from_the_bank = (drawn == 77).flatten(1).all(dim=1)
    assert (~from_the_bank).sum() == expected


@pytest.mark.parametrize(
    ("teacher", "share", "codes"),
    [("wrn_10_1", 0.5, ["procedural_unused"]), ("wrn_10_1", 0.0, []), ("lenet5", 0.5, [])],
)
def test_a_share_that_has_no_effect_leads_to_a_warning(teacher: str, share: float, codes: list[str]):
    run = SmallRun(CONFIG.model_copy(update={"procedural_share": share}), teacher=teacher)
    assert [event.code for event in run.of(WarningEvent)] == codes


@pytest.mark.parametrize("stop_after", [3, 10])
def test_a_run_with_procedural_images_resumes_bit_by_bit(stop_after: int, tmp_path: Path):
    whole, stopped, resumed = (SmallRun(CONFIG, seed=seed, teacher="lenet5") for seed in (0, 0, 7))
    whole.go_on()
    stopped.go_on(checkpoints=CheckpointFolder(tmp_path), should_stop=after(stop_after))
    resumed.run.resume(CheckpointFolder(tmp_path))
    resumed.go_on()
    assert same(whole.weights(), resumed.weights())
