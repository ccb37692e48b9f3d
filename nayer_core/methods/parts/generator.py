"""The three generators: Table 8, Table 9 and the one the authors ran.

All turn the noisy layer's output into images in [0, 1]. The paper puts spectral normalisation on every
convolution and BatchNorm on the image. The authors' runs had neither, nor have these generators: a memory
bank of 8-bit images needs the range [0, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nayer_core.contract.config import GeneratorName

LEAKY_SLOPE = 0.2


class Generator(nn.Module):
    """A Linear to a small feature map, then convolutions between nearest-neighbour upsamplings.

    Args:
        stem: (B, noise_dim) -> (B, C, height / factor, width / factor).
        body: feature map -> (B, channels, height, width), unbounded.
        image_size: (height, width) in pixels; the feature map is cropped to it where the
            upsampling overshoots.
    """

    def __init__(self, stem: nn.Module, body: nn.Module, image_size: tuple[int, int]):
        super().__init__()
        self.stem = stem
        self.body = body
        self.image_size = image_size
        self.to(memory_format=torch.channels_last)

    def forward(self, generator_input: Tensor) -> Tensor:
        """Make images.

        Args:
            generator_input: (B, noise_dim), what the noisy layer returns.

        Returns:
            (B, channels, height, width) in [0, 1].
        """
        height, width = self.image_size
        # (B, noise_dim) -> (B, C, height / factor, width / factor)
        features = self.stem(generator_input).contiguous(memory_format=torch.channels_last)
        images: Tensor = self.body(features)[..., :height, :width]  # (B, channels, height, width)
        return images.sigmoid()

    @torch.no_grad()
    def redraw(self, rng: torch.Generator) -> None:
        """Draw all weights again, as PyTorch initialises such layers."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=rng)
                if layer.bias is not None:
                    limit = 1 / math.sqrt(layer.weight[0].numel())
                    nn.init.uniform_(layer.bias, -limit, limit, generator=rng)
            elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.reset_parameters()


class UpsampledConv2d(nn.Conv2d):
    """A nearest-neighbour upsampling by 2 and a 3 x 3 convolution, without the upsampled features in memory.

    Upsampling repeats each input pixel four times, so kernel weights that multiply the same pixel can be
    added first. The result is a transposed convolution of stride 2. Its 4 x 4 kernel is the 3 x 3 kernel
    convolved with 2 x 2 ones: 4 products for each output instead of 9, and a quarter of the memory for the
    backward pass. The parameters are those of the 3 x 3 convolution.

    Args:
        before: channels of the input.
        after: channels of the output.
    """

    def __init__(self, before: int, after: int):
        super().__init__(before, after, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Upsample and convolve.

        Args:
            features: (B, before, height, width).

        Returns:
            (B, after, 2 * height, 2 * width).
        """
        # (after, before, 3, 3) -> (after, before, 4, 3) -> (after, before, 4, 4) -> (before, after, 4, 4)
        rows = F.pad(self.weight, (0, 0, 0, 1)) + F.pad(self.weight, (0, 0, 1, 0))
        spread = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
        kernel = spread.flip(2, 3).transpose(0, 1)
        # (B, before, height, width) -> (B, after, 2 * height, 2 * width)
        convolved = F.conv_transpose2d(features, kernel, stride=2, padding=1)
        assert self.bias is not None  # noqa: S101 - Conv2d has one by default
        # Added separately: the CPU's backward pass of a transposed convolution with bias takes twice as long.
        return convolved.add_(self.bias.to(convolved.dtype).view(-1, 1, 1))


def build_generator(
    name: GeneratorName, noise_dim: int, width: int, input_size: tuple[int, int, int]
) -> Generator:
    """Build a generator with undrawn weights; call `redraw` before use.

    Args:
        name: `published`, `table8` or `table9`.
        noise_dim: r.
        width: channels of the last hidden layer (64 in the paper); earlier ones have twice.
        input_size: (channels, height, width) of the images.
    """
    return _GENERATORS[name](noise_dim, width, input_size)


def _published(noise_dim: int, width: int, input_size: tuple[int, int, int]) -> Generator:
    """Convolve at h/2, h and h: 124 MMAC for 32 x 32 images, computed with 60."""
    channels, height, image_width = input_size
    body = nn.Sequential(
        nn.BatchNorm2d(2 * width),
        *_block(UpsampledConv2d(2 * width, 2 * width)),
        *_block(UpsampledConv2d(2 * width, width)),
        nn.Conv2d(width, channels, 3, padding=1),
    )
    stem = _stem(noise_dim, 2 * width, input_size, factor=4, batch_norm=False)
    return Generator(stem, body, (height, image_width))


def _table8(noise_dim: int, width: int, input_size: tuple[int, int, int]) -> Generator:
    """Convolve at h/4, h/2 and h: 39 MMAC for 32 x 32 images, computed with 27."""
    channels, height, image_width = input_size
    body = nn.Sequential(
        *_block(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
        *_block(UpsampledConv2d(2 * width, width)),
        UpsampledConv2d(width, channels),
    )
    stem = _stem(noise_dim, 2 * width, input_size, factor=4, batch_norm=True)
    return Generator(stem, body, (height, image_width))


def _table9(noise_dim: int, width: int, input_size: tuple[int, int, int]) -> Generator:
    """Start at h/16 and convolve at each doubling, for large images."""
    channels, height, image_width = input_size
    body = nn.Sequential(
        *_block(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
        *_block(UpsampledConv2d(2 * width, 2 * width)),
        *_block(UpsampledConv2d(2 * width, width)),
        *_block(UpsampledConv2d(width, width)),
        UpsampledConv2d(width, channels),
    )
    stem = _stem(noise_dim, 2 * width, input_size, factor=16, batch_norm=True)
    return Generator(stem, body, (height, image_width))


_GENERATORS: dict[GeneratorName, Callable[[int, int, tuple[int, int, int]], Generator]] = {
    "published": _published,
    "table8": _table8,
    "table9": _table9,
}


def _stem(
    noise_dim: int, channels: int, input_size: tuple[int, int, int], *, factor: int, batch_norm: bool
) -> nn.Sequential:
    height, width = (math.ceil(side / factor) for side in input_size[1:])
    features = channels * height * width
    return nn.Sequential(
        nn.Linear(noise_dim, features),
        *([nn.BatchNorm1d(features)] if batch_norm else []),
        nn.Unflatten(1, (channels, height, width)),
    )


def _block(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return (
        convolution,
        nn.BatchNorm2d(convolution.out_channels),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    )
