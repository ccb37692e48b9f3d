"""The label-free metrics against their formulas."""

import pytest
import torch
from torch import nn

from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.measuring.evaluation import accuracy_bounds, predict, share_interval
from nayer_core.measuring.quality import (
    agreement_by_class,
    answers,
    calibration_error,
    class_coverage,
    class_diversity_score,
    diversity_score,
    inception_score,
)
from nayer_core.networks.registry import build

EXACT = Arithmetic(torch.device("cpu"), torch.float32)
PLAIN = Augmentation(torch.tensor([0.5]), torch.tensor([0.25]), crop_padding=0, flip=False)


def _logits(*classes: int, sure: float = 20.0) -> torch.Tensor:
    return sure * nn.functional.one_hot(torch.tensor(classes), 4).float()


def test_inception_score_counts_confidently_predicted_classes():
    assert inception_score(_logits(0, 1, 2, 3)) == pytest.approx(4, rel=1e-3)
    assert inception_score(_logits(0, 0, 1, 1)) == pytest.approx(2, rel=1e-3)
    assert inception_score(torch.zeros(5, 4)) == pytest.approx(1)


def test_diversity_is_the_mean_distance_of_new_from_old():
    new, old = nn.functional.normalize(torch.randn(3, 8)), nn.functional.normalize(torch.randn(5, 8))
    expected = sum((a - b).norm() for a in new for b in old) / 15
    assert diversity_score(new, old) == pytest.approx(expected.item(), rel=1e-4)
    assert diversity_score(new[:1], new[:1].repeat(4, 1)) == pytest.approx(0, abs=1e-3)


def test_class_diversity_compares_images_of_one_class_only():
    apart, same = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1])
    assert class_diversity_score(apart, labels, apart, labels) == pytest.approx(0, abs=1e-3)
    assert class_diversity_score(apart, labels, same, labels) == pytest.approx(2**0.5 / 2, rel=1e-3)
    assert class_diversity_score(apart, labels, apart, labels + 2) is None


def test_class_coverage_counts_only_requested_classes():
    assert class_coverage(_logits(0, 0, 2, 2), torch.tensor([0, 1, 2, 2])) == pytest.approx(2 / 3)


def test_agreement_by_class_goes_by_the_teachers_classes():
    assert agreement_by_class(_logits(0, 1, 1, 3), _logits(0, 0, 1, 1)) == {0: 0.5, 1: 0.5}


def test_calibration_error_is_zero_for_a_student_that_knows_what_it_knows():
    teacher = _logits(0, 0, 0, 0)
    sure = _logits(0, 0, 0, 0)
    half_right = _logits(0, 0, 1, 1)
    assert calibration_error(sure, teacher) == pytest.approx(0, abs=1e-6)
    assert calibration_error(half_right, teacher) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("architecture", ["wrn_10_1", "lenet5", "mobilenet_v2"])
def test_answers_are_the_networks_and_features_have_length_1(architecture: str):
    network = build(architecture, num_classes=4, input_size=(1, 16, 16)).train()
    images = torch.randint(0, 256, (7, 16, 16, 1), dtype=torch.uint8)
    outputs = answers(network, images, PLAIN, EXACT)
    assert network.training
    assert torch.equal(outputs.logits.argmax(dim=1), predict(network, images, PLAIN, EXACT))
    torch.testing.assert_close(outputs.features.norm(dim=1), torch.ones(7))
    assert not any(layer._forward_pre_hooks for layer in network.modules())


@pytest.mark.parametrize(
    ("teacher", "agreement", "bounds"),
    [(0.9, 0.95, (0.85, 0.95)), (0.3, 0.5, (0.0, 0.8)), (1.0, 0.9, (0.9, 1.0))],
)
def test_accuracy_lies_between_what_agreement_allows(
    teacher: float, agreement: float, bounds: tuple[float, float]
):
    assert accuracy_bounds(teacher, agreement) == pytest.approx(bounds)


def test_an_interval_of_a_share_holds_it_and_shrinks_with_more_images() -> None:
    assert share_interval(0.9, 100) == pytest.approx((0.8396, 0.9393), abs=1e-4)  # Wilson, z = 1.645
    wide, narrow = share_interval(0.5, 100), share_interval(0.5, 10_000)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    assert share_interval(1.0, 20)[0] < 1.0 == share_interval(1.0, 20)[1]
    assert share_interval(0.0, 20)[0] == 0.0
