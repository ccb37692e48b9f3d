"""The part of a method that depends on the meaning of the networks' outputs."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Task(Protocol):
    """Chooses the targets of images, and compares outputs with targets and with each other.

    Attributes:
        name: as specifications spell it.
        num_classes: K.
        uninformed_loss: the target loss of outputs that say nothing about the target.
    """

    name: ClassVar[str]
    num_classes: int
    uninformed_loss: float

    def targets(self, batch_size: int, round_index: int, rng: torch.Generator) -> Tensor:
        """Choose the targets of a round's images.

        Args:
            batch_size: B.
            round_index: which round of the run this is, from 0.
            rng: source of random numbers.

        Returns:
            (B, ...) int64.
        """

    def target_loss(self, teacher_outputs: Tensor, targets: Tensor) -> Tensor:
        """Reward images in which the teacher sees their targets: L_CE of Eq. 5, a scalar >= 0."""

    def adversarial_loss(
        self, student_outputs: Tensor, teacher_outputs: Tensor, *, bounded: bool = False
    ) -> Tensor:
        """Reward images on which the student differs from the teacher: L_adv of Eq. 5, a scalar <= 0."""

    def distillation_loss(
        self, student_outputs: Tensor, teacher_outputs: Tensor, temperature: float
    ) -> Tensor:
        """Compare the student's outputs with the teacher's: a scalar >= 0."""
