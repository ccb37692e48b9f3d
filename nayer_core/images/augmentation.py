"""Augmentation of a batch of images: each gets its own crop and mirroring, in one indexing step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, mirroring and normalisation, applied before images enter a network.

    Args:
        mean: (C,) subtracted from images in [0, 1], as in the teacher's training.
        std: (C,) divides the result, as there.
        crop_padding: pixels of padding on each side before the crop.
        flip: whether half of the images are mirrored.
    """

    mean: Tensor
    std: Tensor
    crop_padding: int
    flip: bool

    def draw(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Draw how far each image of a batch is moved and whether it is mirrored.

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
        return torch.stack([down, right, mirrored.long()], dim=1)  # 3 x (B,) -> (B, 3)

    def __call__(self, images: Tensor, views: Tensor) -> Tensor:
        """Crop, mirror and normalise images, each by its own view.

        Args:
            images: (B, H, W, C), floats in [0, 1] or bytes; gradients pass through floats.
            views: (B, 3), returned by `draw`.

        Returns:
            (B, C, H, W) float32, channels-last in memory.
        """
        down, right, mirrored = views.unbind(1)  # (B,) each
        return self.normalize(_ShiftAndMirror.apply(images, down, right, mirrored.bool()))

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise (B, H, W, C) images, floats in [0, 1] or bytes, as the teacher expects them.

        Returns:
            (B, C, H, W) float32, channels-last in memory.
        """
        scale = 1 / (self.std * 255) if images.dtype == torch.uint8 else 1 / self.std
        # (B, H, W, C) -> (B, C, H, W)
        return torch.addcmul(-self.mean / self.std, images.float(), scale).permute(0, 3, 1, 2)


class _ShiftAndMirror(torch.autograd.Function):
    """Move each image by its own offset, filling with zeros, then mirror some.

    Autograd through an index would scatter with addition. The adjoint is the same gather with the offsets
    reversed, so the backward pass costs as much as the forward pass.
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
    # (B, H, 1) & (B, 1, W) -> (B, H, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch_index = torch.arange(batch, device=images.device)[:, None, None]  # (B, 1, 1)
    moved = images[batch_index, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return moved * inside[..., None]


def cutmix(images: Tensor, box: Tensor) -> Tensor:
    """Paste a box of each image's neighbour in the batch into the image.

    All images use the same box (Yun et al., ICCV 2019, with lambda from Beta(1, 1)). The teacher labels the
    mixture, so no labels need mixing.

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
