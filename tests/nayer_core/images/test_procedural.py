"""Procedural images: as bright as the teacher's data, smooth, and the same in every process."""

import pytest
import torch

from nayer_core.images.procedural import procedural_images

MNIST = ((1, 28, 28), (0.1307,), (0.3081,))
PHOTOGRAPHS = ((3, 40, 24), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def values(images: torch.Tensor) -> torch.Tensor:
    """By channel, in [0, 1]."""
    return images.flatten(0, 2).double() / 255


@pytest.mark.parametrize(("size", "mean", "std"), [MNIST, PHOTOGRAPHS])
def test_each_channel_has_the_mean_and_the_deviation_of_the_data(size, mean, std):
    images = procedural_images(150, size, mean, std, seed=0)
    assert images.shape == (150, size[1], size[2], size[0])
    assert images.dtype == torch.uint8
    assert values(images).mean(0).tolist() == pytest.approx(mean, abs=0.01)
    assert values(images).std(0).tolist() == pytest.approx(std, abs=0.01)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.0, 1.0), (127.5, 58.0)])
def test_values_that_no_images_have_lead_to_all_levels_equally(mean, std):
    images = procedural_images(100, (1, 16, 16), (mean,), (std,), seed=0)
    assert values(images).mean().item() == pytest.approx(0.5, abs=0.01)
    assert values(images).std().item() == pytest.approx(12**-0.5, abs=0.01)


def test_images_of_little_contrast_are_made_too():
    images = procedural_images(100, (1, 16, 16), (0.5,), (0.001,), seed=0)
    assert values(images).mean().item() == pytest.approx(0.5, abs=0.01)
    assert values(images).std().item() < 0.1


def test_the_same_seed_gives_the_same_images_and_another_others():
    first, again, other = (procedural_images(120, *PHOTOGRAPHS, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) == 120


def test_pixels_that_are_close_to_each_other_are_alike():
    images = procedural_images(150, *MNIST, seed=0).double()
    images -= images.mean()
    neighbours = (images[:, 1:] * images[:, :-1]).mean() / images.square().mean()
    assert 0.8 < neighbours < 0.98  # MNIST 0.85, CIFAR-10 0.92


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 5), (1, 64, 3)])
def test_images_of_any_size_are_made(size):
    assert procedural_images(3, size, (0.4,) * size[0], (0.2,) * size[0], seed=0).shape == (
        3,
        size[1],
        size[2],
        size[0],
    )
