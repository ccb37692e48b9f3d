"""What guides the images of a teacher without BatchNorm, and that such a job says so."""

import pytest
import torch
from torch import Tensor

from nayer_core.contract.events import MetricsEvent
from nayer_core.methods.parts.image_prior import input_statistics_distance
from tests.support.small_runs import CONFIG, SmallRun


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
