"""What guides the images where the teacher has no BatchNorm and so remembers no statistics.

One thing about the teacher's data is known all the same: the mean and the deviation of each channel,
which its training subtracted and divided by. Normalised images have mean 0 and variance 1, and images
are held to that, as ZeroQ (Cai et al., CVPR 2020) does beside the statistics of the layers.
"""

import torch
from torch import Tensor

from nayer_core.methods.parts.bn_regularization import BatchStatistics


def input_statistics_distance(inputs: Tensor, batch_statistics: BatchStatistics = list) -> Tensor:
    """How far the channels of a batch are from mean 0 and variance 1, in the form of L_BN.

    Args:
        inputs: (B, C, H, W) float32, normalised as the teacher's training images were.
        batch_statistics: turns statistics of this process's images into those of the whole batch.

    Returns:
        Scalar >= 0: the norm of the means and the norm of what the variances differ from 1, added.
    """
    variance, mean = torch.var_mean(inputs, dim=(0, 2, 3), correction=0)
    ((mean, variance),) = batch_statistics([torch.stack([mean, variance])])
    distance: Tensor = torch.linalg.vector_norm(torch.stack([mean, variance - 1]), dim=1).sum()
    return distance
