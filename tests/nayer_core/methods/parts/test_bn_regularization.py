"""The BN term against its definition, its average over rounds, and its hooks' life."""

import pytest
import torch
from torch import nn

from nayer_core.methods.parts.bn_regularization import BNRegularization, channel_statistics


def _teacher() -> nn.Module:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    )
    teacher(torch.randn(32, 3, 9, 9))
    return teacher.eval().requires_grad_(False)


def _statistics(teacher: nn.Module, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    features, result = images, []
    for layer in teacher:
        if isinstance(layer, nn.BatchNorm2d):
            mean = features.mean((0, 2, 3))
            result.append((mean, (features - mean[:, None, None]).square().mean((0, 2, 3))))
        features = layer(features)
    return result


def _norms(teacher: nn.Module, matched: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    layers = [layer for layer in teacher if isinstance(layer, nn.BatchNorm2d)]
    return sum(
        (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()
        for layer, (mean, variance) in zip(layers, matched, strict=True)
    )


def test_first_round_matches_the_batch_alone():
    teacher, images = _teacher(), torch.rand(8, 3, 9, 9)
    term = BNRegularization(teacher, momentum=0.9)
    with term.watching():
        teacher(images)
        loss, _ = term.loss()
    torch.testing.assert_close(loss, _norms(teacher, _statistics(teacher, images)))


def test_later_rounds_match_a_tenth_of_the_batch_and_nine_of_the_average():
    teacher = _teacher()
    first, second, third = torch.rand(3, 8, 3, 9, 9)
    term = BNRegularization(teacher, momentum=0.9)
    for images in (first, second):
        with term.watching():
            teacher(images)
            _, statistics = term.loss()
        term.end_round(statistics)
    with term.watching():
        teacher(third)
        loss, _ = term.loss()
    matched = []
    for one, two, three in zip(
        *(_statistics(teacher, images) for images in (first, second, third)), strict=True
    ):
        average = [0.9 * a + 0.1 * b for a, b in zip(one, two, strict=True)]
        matched.append(tuple(0.9 * a + 0.1 * c for a, c in zip(average, three, strict=True)))
    torch.testing.assert_close(loss, _norms(teacher, matched))


def test_relative_to_noise_has_the_same_size_for_every_teacher():
    images = 2 + 3 * torch.rand(64, 3, 9, 9)
    noise = torch.randn(64, 3, 9, 9)
    losses = []
    for scale in (1.0, 100.0):
        teacher = _teacher()
        teacher[0].weight.mul_(scale)
        teacher[0].bias.mul_(scale)
        for _ in range(60):  # its running statistics become those of the images
            teacher.train()(images)
        term = BNRegularization(teacher.eval(), momentum=0.9)
        term.relative_to_noise(teacher, (3, 9, 9))
        for batch in (noise, 0.9 * images):
            with term.watching():
                teacher(batch)
                losses.append(term.loss()[0])
    of_noise, of_images, *scaled = losses
    assert 0.8 < of_noise < 1.2
    assert of_images < 0.8 * of_noise
    torch.testing.assert_close(torch.stack(scaled), torch.stack(losses[:2]), rtol=0.05, atol=0)


def test_gradient_reaches_the_images_and_hooks_go():
    teacher, images = _teacher(), torch.rand(8, 3, 9, 9, requires_grad=True)
    term = BNRegularization(teacher, momentum=0.9)
    with term.watching():
        teacher(images)
        loss, _ = term.loss()
        loss.backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert not any(layer._forward_pre_hooks for layer in teacher.modules())


def test_gradient_of_the_statistics_is_the_formulas():
    features = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    by_hand = torch.stack([features.mean((0, 2, 3)), features.var((0, 2, 3), correction=0)])
    weights = torch.randn(2, 3)
    (expected,) = torch.autograd.grad((by_hand * weights).sum(), features)
    single = features.detach().float().requires_grad_()
    (result,) = torch.autograd.grad((channel_statistics(single) * weights).sum(), single)
    torch.testing.assert_close(result, expected.float())


def test_statistics_of_half_precision_features_are_float32():
    features = 100 + torch.randn(16, 3, 8, 8)
    statistics = channel_statistics(features.bfloat16())
    assert statistics.dtype == torch.float32
    torch.testing.assert_close(statistics, channel_statistics(features.bfloat16().float()))


def test_without_batch_norm_there_is_no_term():
    assert not BNRegularization(nn.Sequential(nn.Conv2d(3, 4, 3)), momentum=0.9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_the_same_on_cuda(dtype: torch.dtype):
    features = torch.randn(16, 8, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channel_statistics(features.cuda()).cpu(), channel_statistics(features))
