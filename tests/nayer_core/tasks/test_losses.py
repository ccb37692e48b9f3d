"""The loss terms against their formulas."""

import math

import torch
from torch.nn import functional as F

from nayer_core.tasks.losses import adversarial_loss, distillation_loss, label_cross_entropy


def _logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


def test_adversarial_loss_counts_only_images_both_sides_name_alike():
    teacher, student = _logits(0), _logits(1)
    p, q = teacher.softmax(1), student.softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1)
    agreed = teacher.argmax(1) == student.argmax(1)
    assert 0 < agreed.sum() < 6
    torch.testing.assert_close(adversarial_loss(student, teacher), -divergence[agreed].sum() / 6)


def test_adversarial_loss_is_zero_where_nothing_is_agreed():
    teacher = torch.tensor([[5.0, 0.0]])
    assert adversarial_loss(-teacher, teacher) == 0


def test_the_bounded_adversary_is_kl_where_both_nearly_agree():
    teacher = _logits(0)
    student = teacher + 0.01 * _logits(1)
    torch.testing.assert_close(
        adversarial_loss(student, teacher, bounded=True),
        adversarial_loss(student, teacher),
        rtol=0.02,
        atol=0,
    )


def test_only_the_unbounded_adversary_can_run_away():
    """Both name the first class; the teacher's second choice is the student's last by a wide margin."""
    teacher = torch.tensor([[1.0, 0.9, 0.0]])
    student = torch.tensor([[10_000.0, 0.0, 9_000.0]])
    assert adversarial_loss(student, teacher) < -1000
    assert -4 * math.log(2) <= adversarial_loss(student, teacher, bounded=True) < 0


def test_distillation_loss_is_the_softened_divergence_times_temperature_squared():
    teacher, student = _logits(2), _logits(3)
    p, q = (teacher / 20).softmax(1), (student / 20).softmax(1)
    expected = 400 * (p * (p.log() - q.log())).sum() / 6
    torch.testing.assert_close(distillation_loss(student, teacher, 20.0), expected, rtol=1e-2, atol=1e-3)


def test_distillation_loss_at_high_temperature_is_the_distance_of_centred_logits():
    teacher, student = _logits(4), _logits(5)
    difference = (teacher - teacher.mean(1, keepdim=True)) - (student - student.mean(1, keepdim=True))
    expected = difference.square().sum(1).mean() / (2 * 5)
    torch.testing.assert_close(distillation_loss(student, teacher, 100.0), expected, rtol=5e-2, atol=0)


def test_losses_accept_half_precision_logits():
    teacher, student = _logits(6), _logits(7)
    for loss in (adversarial_loss, lambda s, t: distillation_loss(s, t, 4.0)):
        exact, rounded = loss(student, teacher), loss(student.bfloat16(), teacher.bfloat16())
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_label_cross_entropy_is_the_mean_over_the_batch():
    logits, labels = _logits(8), torch.tensor([0, 1, 2, 3, 4, 0])
    torch.testing.assert_close(label_cross_entropy(logits, labels), F.cross_entropy(logits, labels))
