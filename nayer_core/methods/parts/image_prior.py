"""The loss term that replaces L_BN where the teacher has no BatchNorm, and so no running statistics.

The mean and the deviation of each channel of the teacher's data are still known: its training subtracted the
one and divided by the other. So normalised images have mean 0 and variance 1. This term asks the same of
synthetic images, as ZeroQ (Cai et al., CVPR 2020) does beside the statistics of the layers.
"""

import torch
from torch import Tensor

from nayer_core.methods.parts.bn_regularization import BatchStatistics


def input_statistics_distance(inputs: Tensor, batch_statistics: BatchStatistics = list) -> Tensor:
    """Distance of a batch's channels from mean 0 and variance 1, in the form of L_BN.

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
