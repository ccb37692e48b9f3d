"""AlexNet (Krizhevsky et al. 2012) for small images: no normalisation, so no statistics to match.

The five convolutions keep the channels of the one-column network (arXiv:1404.5997); kernels,
strides and linear layers shrink with the images.
"""

from torch import Tensor, nn

from nayer_core.networks.initialisation import initialise

_HIDDEN = 1024


class AlexNet(nn.Module):
    """Five convolutions and three linear layers, with dropout before the first two of these.

    Args:
        num_classes: outputs.
        input_size: (channels, height, width) in pixels; sizes the first linear layer.
    """

    def __init__(self, num_classes: int, input_size: tuple[int, int, int]):
        super().__init__()
        channels, height, width = input_size
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
        )
        pixels = -(-height // 8) * -(-width // 8)  # three poolings by two, rounding up
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * pixels, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, num_classes),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images of the size given at construction to (B, num_classes) logits."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
