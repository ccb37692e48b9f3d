"""Accuracy and agreement on arrays of images, which are never used for training."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation

BATCH_SIZE = 250


@dataclass(frozen=True)
class EvaluationSet:
    """The client's images, for measurement and never for training.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, augment: Augmentation, arithmetic: Arithmetic) -> Tensor:
    """Predict the class of each image.

    Args:
        network: used in eval mode, then returned to its mode.
        images: (N, H, W, C) uint8, anywhere.
        augment: supplies the normalisation.
        arithmetic: number format and device.

    Returns:
        (N,) int64 on the CPU.
    """
    was_training = network.training
    network.eval()
    predictions = []
    for batch in images.split(BATCH_SIZE):
        with arithmetic.autocast():
            logits = network(augment.normalize(batch.to(arithmetic.device)))
        predictions.append(logits.argmax(dim=1).cpu())
    network.train(was_training)
    return torch.cat(predictions)


def share_equal(predictions: Tensor, reference: Tensor) -> float:
    """Share of images with the same class in both, in [0, 1]: accuracy or agreement."""
    return (predictions == reference.cpu()).double().mean().item()


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Interval that holds the share in all images with 90 %, if `count` of them were drawn at random.

    Wilson's, which stays within [0, 1] and does not collapse at its ends.

    Args:
        share: measured, in [0, 1].
        count: images it was measured on, at least 1.
    """
    z = 1.645  # standard deviations that leave 5 % on either side
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_bounds(teacher_accuracy: float, agreement: float) -> tuple[float, float]:
    """Bound the student's accuracy by the teacher's accuracy and their agreement.

    Where teacher and student agree, both are right or both are wrong; where they differ, any case is
    possible. The bounds hold only for the images on which the agreement was measured.

    Returns:
        (lower, upper), each in [0, 1].
    """
    return max(0.0, teacher_accuracy + agreement - 1), min(1.0, teacher_accuracy + 1 - agreement)
