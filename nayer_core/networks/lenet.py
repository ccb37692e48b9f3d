"""LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling in place of tanh and sub-sampling."""

import torch.nn.functional as F
from torch import Tensor, nn

from nayer_core.networks.initialisation import initialise

_DESIGN_SIDE = 32  # pixels; the paper pads its 28 x 28 digits to this


class LeNet5(nn.Module):
    """Three 5 x 5 convolutions (6, 16, 120 channels) and two linear layers; no normalisation.

    Images below 32 pixels are padded with zeros to 32, as the paper does with its digits;
    larger ones make the first linear layer larger.

    Args:
        num_classes: outputs.
        input_size: (channels, height, width) in pixels.
    """

    def __init__(self, num_classes: int, input_size: tuple[int, int, int]):
        super().__init__()
        channels, height, width = (input_size[0], *(max(_DESIGN_SIDE, side) for side in input_size[1:]))
        self.padding = _centred(input_size[1], input_size[2])
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120 * _side_left(height) * _side_left(width), 84)
        self.fc2 = nn.Linear(84, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images of the size given at construction to (B, num_classes) logits."""
        x = F.pad(x, self.padding)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x)).flatten(1)
        logits: Tensor = self.fc2(F.relu(self.fc1(x)))
        return logits


def _centred(height: int, width: int) -> tuple[int, int, int, int]:
    rows, columns = max(0, _DESIGN_SIDE - height), max(0, _DESIGN_SIDE - width)
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def _side_left(side: int) -> int:
    return ((side - 4) // 2 - 4) // 2 - 4  # three 5 x 5 convolutions, two poolings: 32 -> 28, 14, 10, 5, 1
