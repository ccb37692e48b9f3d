"""Classification: a network returns one logit for each class, and an image shows one class."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from nayer_core.tasks import losses


class Classification:
    """The task of a network with `num_classes` logits for each image.

    Args:
        num_classes: K.
    """

    name: ClassVar[str] = "classification"

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.uninformed_loss = math.log(num_classes)

    def targets(self, batch_size: int, round_index: int, rng: torch.Generator) -> Tensor:
        """Choose the classes of a round: all of them equally often (`sweep_labels`); (B,) int64."""
        return sweep_labels(self.num_classes, batch_size, round_index, rng)

    target_loss = staticmethod(losses.label_cross_entropy)
    adversarial_loss = staticmethod(losses.adversarial_loss)
    distillation_loss = staticmethod(losses.distillation_loss)


def sweep_labels(num_classes: int, batch_size: int, round_index: int, rng: torch.Generator) -> Tensor:
    """Choose the classes of a round: sweeps over all classes, in which each occurs once.

    Where the batch is larger than the number of classes, whole sweeps come first and a random
    part of one fills the rest. Where it is smaller, consecutive rounds walk through a shuffled
    order, so that every class comes up once in ceil(K / B) rounds.

    Args:
        num_classes: K.
        batch_size: B.
        round_index: which round of the run this is, from 0; only used where B < K.
        rng: source of the random part.

    Returns:
        (B,) int64 on the device of `rng`.
    """
    if batch_size >= num_classes:
        whole = torch.arange(num_classes, device=rng.device).repeat(batch_size // num_classes)
        rest = torch.randperm(num_classes, generator=rng, device=rng.device)[: batch_size % num_classes]
        return torch.cat([whole, rest])
    rounds_a_sweep = math.ceil(num_classes / batch_size)
    sweep, position = divmod(round_index, rounds_a_sweep)
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(sweep))
    return order.roll(-position * batch_size)[:batch_size].to(rng.device)
