"""The memory bank M of Algorithm 1: synthetic images as bytes, preallocated, bounded.

Images lie as (N, H, W, C), so that a crop reads whole pixels and a batch comes out in the
channels-last layout that convolutions like. When the bank is full the oldest images give way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nayer_core.contract.config import DistillConfig


@dataclass(frozen=True)
class Segment:
    """The images of one round: where they lie in the order of all images ever added."""

    start: int
    length: int


class MemoryBank:
    """A ring of 8-bit images and the labels they were made for.

    Args:
        capacity: most images kept.
        input_size: (channels, height, width).
        device: where the images lie; batches come out there.
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
        """Most images kept."""
        return self.images.shape[0]

    def add(self, images: Tensor, labels: Tensor) -> Segment:
        """Keep a round's images; the oldest go where the bank is full.

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
        """Forget all images."""
        self.added = 0
        self.segments = []

    def restore(self, segment: Segment, images: Tensor, labels: Tensor) -> None:
        """Put a saved segment back where it lay; segments must come in their order."""
        self._write(segment, images.to(self.images.device), labels.to(self.labels.device))

    def read(self, segment: Segment) -> tuple[Tensor, Tensor]:
        """Give a segment's images and labels; it must still be whole."""
        slots = self._slots(segment)
        return self.images[slots], self.labels[slots]

    def sample(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Draw images uniformly, with replacement.

        Returns:
            (batch_size, H, W, C) uint8.
        """
        slots = torch.randint(len(self), (batch_size,), generator=rng, device=self.images.device)
        return self.images[slots]

    def _write(self, segment: Segment, images: Tensor, labels: Tensor) -> None:
        slots = self._slots(segment)
        self.images[slots] = images
        self.labels[slots] = labels
        self.added = segment.start + segment.length
        oldest = self.added - self.capacity
        self.segments = [*(kept for kept in self.segments if kept.start >= oldest), segment]

    def _slots(self, segment: Segment) -> Tensor:
        order = torch.arange(segment.start, segment.start + segment.length, device=self.images.device)
        return order % self.capacity


def to_bytes(images: Tensor) -> Tensor:
    """Turn (B, C, H, W) images in [0, 1] into (B, H, W, C) bytes, rounded."""
    return images.permute(0, 2, 3, 1).mul(255).round_().to(torch.uint8)


def images_made(config: DistillConfig) -> int:
    """How many images a whole run adds to the bank."""
    warmup_rounds = config.warmup_epochs * config.warmup_rounds_per_epoch
    rounds = warmup_rounds + config.epochs * config.rounds_per_epoch
    return rounds * images_a_round(config)


def images_a_round(config: DistillConfig) -> int:
    """How many images a round adds to the bank."""
    kept_steps = min(max(1, config.images_of_last_steps), config.generator_steps)
    return config.synthesis_batch_size * kept_steps
