"""What a network's outputs mean: the part of a method that depends on the task."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Task(Protocol):
    """Which targets images are made for, and how outputs are compared with them and with each other.

    Attributes:
        name: as specifications spell it.
        num_classes: K.
    """

    name: ClassVar[str]
    num_classes: int

    def targets(self, batch_size: int, round_index: int, rng: torch.Generator) -> Tensor:
        """Choose what the images of a round are to show.

        Args:
            batch_size: B.
            round_index: which round of the run this is, from 0.
            rng: source of what is random.

        Returns:
            (B, ...) int64.
        """

    def target_loss(self, teacher_outputs: Tensor, targets: Tensor) -> Tensor:
        """Pull images to where the teacher sees their targets: L_CE of Eq. 5, a scalar >= 0."""

    def adversarial_loss(self, student_outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Reward images on which the student still departs from the teacher: L_adv of Eq. 5, <= 0."""

    def distillation_loss(
        self, student_outputs: Tensor, teacher_outputs: Tensor, temperature: float
    ) -> Tensor:
        """Bring the student's outputs to the teacher's, a scalar >= 0."""
