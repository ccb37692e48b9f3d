"""The memory bank M of Algorithm 1: synthetic images as bytes, preallocated, of bounded number.

Images are stored as (N, H, W, C): a crop reads whole pixels, and a batch has the channels-last layout in
which convolutions are fast. When the bank is full, new images replace the oldest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """The images of one round: their place in the order of all images ever added."""

    start: int
    length: int


class MemoryBank:
    """A ring of 8-bit images and the labels they were made for.

    Args:
        capacity: the largest number of images.
        input_size: (channels, height, width).
        device: where the images are stored, and where batches are returned.
    """

    def __init__(self, capacity: int, input_size: tuple[int, int, int], device: torch.device):
        channels, height, width = input_size
        self.images = torch.empty(capacity, height, width, channels, dtype=torch.uint8, device=device)
        self.labels = torch.empty(capacity, dtype=torch.int64, device=device)
        self.added = 0
        self.segments: list[Segment] = []

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def capacity(self) -> int:
        """The largest number of images."""
        return self.images.shape[0]

    def add(self, images: Tensor, labels: Tensor) -> Segment:
        """Store a round's images, in place of the oldest where the bank is full.

        Args:
            images: (B, H, W, C) uint8, B at most the capacity.
            labels: (B,) int64.

        Returns:
            The segment these images form.
        """
        segment = Segment(self.added, images.shape[0])
        self._write(segment, images, labels)
        return segment

    def clear(self) -> None:
        """Remove all images."""
        self.added = 0
        self.segments = []

    def restore(self, segment: Segment, images: Tensor, labels: Tensor) -> None:
        """Put a saved segment back in its place; segments must come in their order."""
        self._write(segment, images.to(self.images.device), labels.to(self.labels.device))

    def read(self, segment: Segment) -> tuple[Tensor, Tensor]:
        """Return a segment's images and labels; none of them may have been replaced yet."""
        slots = self._slots(segment)
        return self.images[slots], self.labels[slots]

    def sample(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Draw images uniformly, with replacement.

        Returns:
            (batch_size, H, W, C) uint8.
        """
        slots = torch.randint(len(self), (batch_size,), generator=rng, device=self.images.device)
        return self.images[slots]  # (batch_size,) -> (batch_size, H, W, C)

    def _write(self, segment: Segment, images: Tensor, labels: Tensor) -> None:
        slots = self._slots(segment)
        self.images[slots] = images
        self.labels[slots] = labels
        self.added = segment.start + segment.length
        oldest = self.added - self.capacity
        self.segments = [*(earlier for earlier in self.segments if earlier.start >= oldest), segment]

    def _slots(self, segment: Segment) -> Tensor:
        order = torch.arange(segment.start, segment.start + segment.length, device=self.images.device)
        return order % self.capacity


def to_bytes(images: Tensor) -> Tensor:
    """Turn (B, C, H, W) images in [0, 1] into (B, H, W, C) bytes, rounded."""
    # (B, C, H, W) -> (B, H, W, C)
    return images.permute(0, 2, 3, 1).mul(255).round_().to(torch.uint8)
