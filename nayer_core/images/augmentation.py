"""Batched augmentation on tensors: every image its own crop and mirror, in one indexing step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, mirror, normalisation: what stands between an image and a network.

    Args:
        mean: (C,) what the teacher's training subtracted from images in [0, 1].
        std: (C,) what it divided by.
        crop_padding: pixels of padding on each side before the crop.
        flip: whether half of the images are mirrored.
    """

    mean: Tensor
    std: Tensor
    crop_padding: int
    flip: bool

    def draw(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Draw how each image of a batch is to be moved and whether it is mirrored.

        Args:
            batch_size: B.
            rng: on the device of the images.

        Returns:
            (B, 3) int64: pixels down, pixels right, 1 where mirrored.
        """
        size, device, reach = (batch_size,), rng.device, self.crop_padding
        down = torch.randint(-reach, reach + 1, size, generator=rng, device=device)
        right = torch.randint(-reach, reach + 1, size, generator=rng, device=device)
        mirrored = torch.zeros(size, dtype=torch.bool, device=device)
        if self.flip:
            mirrored = torch.rand(size, generator=rng, device=device) < 0.5
        return torch.stack([down, right, mirrored.long()], dim=1)

    def __call__(self, images: Tensor, views: Tensor) -> Tensor:
        """Crop, mirror and normalise images, each in its own way.

        Args:
            images: (B, H, W, C), floats in [0, 1] or bytes; gradients pass through floats.
            views: (B, 3), what `draw` gave for these images.

        Returns:
            (B, C, H, W) float32, channels-last in memory.
        """
        down, right, mirrored = views.unbind(1)  # (B,) each
        return self.normalize(_ShiftAndMirror.apply(images, down, right, mirrored.bool()))

    def normalize(self, images: Tensor) -> Tensor:
        """Bring (B, H, W, C) images, floats in [0, 1] or bytes, to what the teacher expects.

        Returns:
            (B, C, H, W) float32, channels-last in memory.
        """
        scale = 1 / (self.std * 255) if images.dtype == torch.uint8 else 1 / self.std
        return torch.addcmul(-self.mean / self.std, images.float(), scale).permute(0, 3, 1, 2)


class _ShiftAndMirror(torch.autograd.Function):
    """Move each image by its own offset, zeros flowing in, then mirror some.

    Autograd through an index would scatter with addition. The adjoint is the same gather with
    the offsets reversed, so the way back costs what the way there did.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        ctx.save_for_backward(down, right, mirrored)
        return _shift_and_mirror(images, down, right, mirrored)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        down, right, mirrored = ctx.saved_tensors
        back = torch.where(mirrored, right, -right)
        return _shift_and_mirror(gradients[0], -down, back, mirrored), None, None, None


def _shift_and_mirror(images: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
    batch, height, width, _ = images.shape
    rows = torch.arange(height, device=images.device) + down[:, None]  # (B, H)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + right[:, None]  # (B, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch_index = torch.arange(batch, device=images.device)[:, None, None]
    moved = images[batch_index, rows[:, :, None], columns[:, None, :]]
    return moved * inside[..., None]


def cutmix(images: Tensor, box: Tensor) -> Tensor:
    """Give every image a box of its neighbour in the batch.

    One box serves the batch (Yun et al., ICCV 2019, with lambda from Beta(1, 1)); the teacher
    labels the mixture, so no labels need mixing.

    Args:
        images: (B, C, H, W).
        box: (3,) uniform in [0, 1]: the box's share of the area, and its centre down and across.

    Returns:
        (B, C, H, W), channels-last in memory.
    """
    height, width = images.shape[2:]
    share, centre_y, centre_x = box
    half = share.sqrt() / 2
    rows = (torch.arange(height, device=images.device) + 0.5) / height
    columns = (torch.arange(width, device=images.device) + 0.5) / width
    inside = ((rows - centre_y).abs() < half)[:, None] & ((columns - centre_x).abs() < half)  # (H, W)
    return torch.where(inside, images.roll(1, dims=0), images)
