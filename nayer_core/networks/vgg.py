"""VGG with batch normalisation (Simonyan and Zisserman 2015, arXiv:1409.1556) for small images.

Configurations A, B, D and E of Table 1 (11, 13, 16, 19 layers) and the 8-layer network of the
distillation literature, with one linear layer after the convolutions instead of three.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nayer_core.networks.initialisation import initialise

_CHANNELS = (64, 128, 256, 512, 512)

# Depth -> convolutions in each of the five stages.
_STAGES = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """3 x 3 convolutions in five stages, each ending in a pooling by two.

    Args:
        depth: 8, 11, 13, 16 or 19.
        num_classes: outputs.
        in_channels: 1 or 3.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for channels, convolutions in zip(_CHANNELS, _STAGES[depth], strict=True):
            for _ in range(convolutions):
                layers += _convolution(in_channels, channels)
                in_channels = channels
            # Rounding up keeps a pixel of images that are no multiple of 32 (28 -> 14, 7, 4, 2, 1).
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images to (B, num_classes) logits; any H and W."""
        x = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def _convolution(in_channels: int, channels: int) -> list[nn.Module]:
    # The bias is idle in front of a normalisation; published weights hold it.
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
