"""Images that no network made: textures and shapes at random, as bright as the teacher's data.

A student has to agree with its teacher wherever real images are, and those that a generator makes are in few
of these places if the teacher has no BatchNorm to guide it. Pictures of nothing in particular are in
others. The teacher labels them as it labels any image.

An image is fractal noise with segments, arcs and discs of random colour over it. Then the grey levels of each
channel are mapped, in order, to those of a Beta distribution with the mean and the deviation of the teacher's
normalisation: white strokes on black for the digits of MNIST, soft greys for photographs.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SHAPES = 4  # of an image at most; each is there in four images of five
_CHUNK = 100  # images made at a time
_LEVELS = 256
_SORTED = 200_000  # pixels of a chunk from which its quantiles are taken
_LEAST_CONCENTRATION = 0.05  # below it, mean and deviation are not those of images in [0, 1]
_MOST_CONCENTRATION = 50.0  # of images with little contrast
_NODES = 1000  # of a numerical integral


def procedural_images(
    count: int, input_size: tuple[int, int, int], mean: Sequence[float], std: Sequence[float], seed: int
) -> Tensor:
    """Make images; the same arguments give the same ones.

    Args:
        count: how many.
        input_size: (channels, height, width) in pixels.
        mean: of each channel of the teacher's data, in [0, 1].
        std: likewise. Values that no images have, such as (0, 1) or (0.5, 0.5), lead to all levels equally.
        seed: of all random numbers.

    Returns:
        (count, H, W, C) uint8 on the CPU.
    """
    rng = torch.Generator().manual_seed(seed)
    shares = [_shares_below(*statistics) for statistics in zip(mean, std, strict=True)]
    chunks = []
    for first in range(0, count, _CHUNK):
        fields = _fields(min(_CHUNK, count - first), input_size, rng)  # (b, C, H, W)
        chunks.append(torch.stack([_as_bytes(fields[:, i], share) for i, share in enumerate(shares)], dim=3))
    return torch.cat(chunks)


def _fields(count: int, input_size: tuple[int, int, int], rng: torch.Generator) -> Tensor:
    """Textures with shapes over them, (count, C, H, W), in no particular range."""
    height, width = input_size[1:]
    rows = ((torch.arange(height) + 0.5) / height * 2 - 1).view(1, -1, 1)
    columns = ((torch.arange(width) + 0.5) / width * 2 - 1).view(1, 1, -1)
    images = _textures(count, input_size, rng)
    for _ in range(SHAPES):
        distance = _shapes(count, rows, columns, rng)[:, None]  # (count, 1, H, W)
        is_there = torch.rand(count, 1, 1, 1, generator=rng) < 0.8
        inside = torch.sigmoid(-0.8 * max(height, width) * distance) * is_there
        is_dark = torch.rand(count, 1, 1, 1, generator=rng) < 0.25
        colour = torch.randn(count, input_size[0], 1, 1, generator=rng) * 0.4 + torch.where(
            is_dark, -1.5, 1.5
        )
        images = torch.lerp(images, colour, inside)
    # Most of an image's pixels are behind its shapes: they take a common level in all images.
    return images - 0.8 * images.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)


def _textures(count: int, input_size: tuple[int, int, int], rng: torch.Generator) -> Tensor:
    """Fractal noise, (count, C, H, W), of random smoothness and contrast in each image."""
    channels, height, width = input_size
    texture = torch.zeros(count, channels, height, width)
    smoothness = 0.5 + 1.5 * torch.rand(count, 1, 1, 1, generator=rng)
    cells = 2
    while cells <= max(2, max(height, width) // 2):
        noise = torch.randn(count, channels, cells, cells, generator=rng)
        texture += F.interpolate(noise, size=(height, width), mode="bilinear") * (cells / 2) ** -smoothness
        cells *= 2
    contrast = 0.1 + 0.6 * torch.rand(count, 1, 1, 1, generator=rng)
    deviation = texture.flatten(1).std(dim=1, correction=0).clamp(min=1e-6)
    return texture / deviation.view(-1, 1, 1, 1) * contrast


def _shapes(count: int, rows: Tensor, columns: Tensor, rng: torch.Generator) -> Tensor:
    """Signed distance to one shape of each image, (count, H, W): below 0 inside; the side is 2.

    Args:
        count: of images.
        rows: (1, H, 1) places from -1 to 1.
        columns: (1, 1, W) likewise.
        rng: source of random numbers.
    """

    def uniform(low: float, high: float) -> Tensor:  # (count, 1, 1)
        return low + (high - low) * torch.rand(count, 1, 1, generator=rng)

    y, x, thickness = uniform(-0.8, 0.8), uniform(-0.8, 0.8), uniform(0.06, 0.2)
    down, right = uniform(-0.8, 0.8) - y, uniform(-0.8, 0.8) - x
    along = ((rows - y) * down + (columns - x) * right) / (down.square() + right.square() + 1e-3)
    along = along.clamp(0, 1)
    segment = torch.hypot(rows - y - along * down, columns - x - along * right) - thickness

    y, x, height, width = y / 2, x / 2, uniform(0.15, 0.65), uniform(0.15, 0.65)  # of an ellipse
    disc = (torch.hypot((rows - y) / height, (columns - x) / width) - 1) * torch.minimum(height, width)
    angle = uniform(0, 2 * math.pi)
    cut = (rows - y) * angle.sin() + (columns - x) * angle.cos() - uniform(-0.3, 1.2) * height
    arc = torch.maximum(disc.abs() - thickness, cut)

    kind = uniform(0, 1)
    return torch.where(kind < 0.45, segment, torch.where(kind < 0.9, arc, disc))


def _shares_below(mean: float, std: float) -> Tensor:
    """Share of pixels below each level from 1 to 255, (255,), by the Beta distribution of mean and std."""
    concentration, a, b = mean * (1 - mean) / std**2 - 1, 1.0, 1.0
    if concentration > _LEAST_CONCENTRATION and 0 < mean < 1:
        concentration = min(concentration, _MOST_CONCENTRATION)
        a, b = mean * concentration, (1 - mean) * concentration
    level = torch.arange(1, _LEVELS, dtype=torch.float64) / _LEVELS
    half = torch.tensor([0.5], dtype=torch.float64)
    whole = _incomplete_beta(half, a, b) + _incomplete_beta(half, b, a)
    low = _incomplete_beta(level.clamp(max=0.5), a, b) / whole
    high = 1 - _incomplete_beta((1 - level).clamp(max=0.5), b, a) / whole
    return torch.where(level <= 0.5, low, high)


def _incomplete_beta(x: Tensor, a: float, b: float) -> Tensor:
    """Integral of s^(a - 1) (1 - s)^(b - 1) from 0 to x, for x of at most 0.5; (n,) float64."""
    # With s = x t^(1 / a) the singularity at 0 is gone: x^a / a times the mean over t of (1 - s)^(b - 1).
    t = (torch.arange(_NODES, dtype=torch.float64) + 0.5) / _NODES
    return x**a / a * (1 - x[:, None] * t ** (1 / a)).pow(b - 1).mean(dim=1)


def _as_bytes(field: Tensor, shares_below: Tensor) -> Tensor:
    """Map the values of one channel to bytes, in their order.

    Args:
        field: (b, H, W).
        shares_below: (255,), share of pixels below each level.
    """
    flat = field.flatten()
    ordered = flat[:: max(1, len(flat) // _SORTED)].sort().values
    bounds = ordered[(shares_below * (len(ordered) - 1)).round().long()]  # (255,)
    return torch.bucketize(field.contiguous(), bounds).to(torch.uint8)
