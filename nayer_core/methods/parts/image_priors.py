"""What is known of the teacher's data without any of it, and is asked of the images; chosen by what it has.

BatchNorm layers remember statistics of that data, and L_BN asks them of the images (`bn_regularization`). A
teacher without such layers remembers nothing of the kind. Then two things take their place:

    input statistics    training subtracted the mean of each channel and divided by its deviation: the
                        generator's images are held to them
    procedural images   a generator without statistics finds few of the places where data is; textures and
                        shapes (`images.procedural`) are in others, and make a share of the student's images
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig, MethodConfig
from nayer_core.methods.parts.bn_regularization import BatchStatistics, BNRegularization

BATCH_NORM, INPUT_STATISTICS, PROCEDURAL_IMAGES = "batch_norm", "input_statistics", "procedural_images"


@dataclass(frozen=True)
class ImagePrior:
    """One of the things that are asked of the images.

    Args:
        name: for reports.
        weight: in the loss, or the share of images.
        reason: why this teacher's images are held to it.
    """

    name: str
    weight: float
    reason: str


def image_priors(teacher: nn.Module, config: MethodConfig) -> tuple[ImagePrior, ...]:
    """Choose the priors of a teacher; those of weight 0 are left out.

    Args:
        teacher: any network, with numbers or without.
        config: has the weights; a method without a generator's loss has only the share of images.
    """
    bn_weight, statistics_weight = 0.0, 0.0
    if isinstance(config, DistillConfig):
        bn_weight, statistics_weight = config.bn_weight, config.image_prior_weight
    layers = len(BNRegularization(teacher, momentum=0.0).layers)
    if layers:
        reason = f"{layers} BatchNorm layers remember statistics of the teacher's data."
        priors = [ImagePrior(BATCH_NORM, bn_weight, reason)]
    else:
        known = "No BatchNorm: of the data, only the mean and deviation of teacher.normalization are known."
        elsewhere = "No BatchNorm: the generator's images are in few of the places where data is."
        priors = [
            ImagePrior(INPUT_STATISTICS, statistics_weight, known),
            ImagePrior(PROCEDURAL_IMAGES, config.procedural_share, elsewhere),
        ]
    return tuple(prior for prior in priors if prior.weight)


def weight_of(name: str, teacher: nn.Module, config: MethodConfig) -> float:
    """Return the weight of a prior by name; 0 if the teacher has not got it."""
    return sum(prior.weight for prior in image_priors(teacher, config) if prior.name == name)


def input_statistics_distance(inputs: Tensor, batch_statistics: BatchStatistics = list) -> Tensor:
    """Distance of a batch's channels from mean 0 and variance 1, in the form of L_BN.

    ZeroQ (Cai et al., CVPR 2020) asks the same of images, beside the statistics of the layers.

    Args:
        inputs: (B, C, H, W) float32, normalised as the teacher's training images were.
        batch_statistics: turns statistics of this process's images into those of the whole batch.

    Returns:
        Scalar >= 0: the norm of the means plus the norm of (variances - 1).
    """
    variance, mean = torch.var_mean(inputs, dim=(0, 2, 3), correction=0)  # (B, C, H, W) -> 2 x (C,)
    ((mean, variance),) = batch_statistics([torch.stack([mean, variance])])
    distance: Tensor = torch.linalg.vector_norm(torch.stack([mean, variance - 1]), dim=1).sum()
    return distance
