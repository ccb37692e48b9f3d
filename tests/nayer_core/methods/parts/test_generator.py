"""Shapes, ranges and costs of the three generators."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nayer_core.methods.parts.generator import UpsampledConv2d, build_generator


def _generator(name: str, input_size: tuple[int, int, int], width: int = 16, seed: int = 0):
    generator = build_generator(name, noise_dim=20, width=width, input_size=input_size)
    generator.redraw(torch.Generator().manual_seed(seed))
    return generator


@pytest.mark.parametrize("name", ["published", "table8", "table9"])
@pytest.mark.parametrize("input_size", [(1, 28, 28), (3, 32, 32), (3, 64, 48), (3, 30, 33)])
def test_images_have_the_requested_size_and_are_in_0_to_1(name: str, input_size: tuple[int, int, int]):
    images = _generator(name, input_size)(torch.randn(4, 20))
    assert images.shape == (4, *input_size)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("name", ["published", "table8", "table9"])
def test_redraw_follows_the_seed_alone(name: str):
    noise = torch.randn(4, 20)
    first, again, other = (_generator(name, (3, 16, 16), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first(noise), again(noise))
    assert not torch.equal(first(noise), other(noise))


def test_redraw_forgets_the_batch_norms_statistics():
    generator = _generator("table8", (3, 16, 16))
    generator(torch.randn(8, 20))
    generator.redraw(torch.Generator().manual_seed(0))
    fresh = _generator("table8", (3, 16, 16))
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, generator.state_dict()[name]), name


@pytest.mark.parametrize(("name", "mmac"), [("published", 60.3), ("table8", 26.8)])
def test_a_32_pixel_image_takes_fewer_multiplications_than_the_papers_124_and_39(name: str, mmac: float):
    generator = build_generator(name, noise_dim=1000, width=64, input_size=(3, 32, 32))
    with FlopCounterMode(display=False) as counter:
        generator.eval()(torch.randn(1, 1000))
    assert counter.get_total_flops() / 2e6 == pytest.approx(mmac, rel=0.02)


def test_an_upsampled_convolution_is_the_convolution_of_the_upsampled():
    layer = UpsampledConv2d(5, 7).double()
    features = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    inputs = [features, *layer.parameters()]
    direct = F.conv2d(F.interpolate(features, scale_factor=2), layer.weight, layer.bias, padding=1)
    towards = torch.randn_like(direct)
    torch.testing.assert_close(layer(features), direct)
    torch.testing.assert_close(
        torch.autograd.grad(layer(features), inputs, towards),
        torch.autograd.grad(direct, inputs, towards),
    )
