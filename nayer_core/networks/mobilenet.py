"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, Table 2) for small images.

Stem and second stage do not stride, so 32 x 32 images reach the head as 4 x 4 maps. The names
of its weights are its own: with torchvision's names and shapes alike, only strides would differ
and no state dict would show which of the two it belongs to.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nayer_core.networks.initialisation import initialise

# (expansion t, channels c, repetitions n, stride s of the first) for each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),  # stride 2 for ImageNet
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int):
        super().__init__()
        hidden = expansion * in_channels
        self.residual = stride == 1 and in_channels == channels
        self.expand = _convolution(in_channels, hidden, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = nn.Sequential(
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )  # linear: an activation would lose what a thin layer carries (section 3.2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """Inverted residuals with linear bottlenecks; width factor 1.

    Args:
        num_classes: outputs.
        in_channels: 1 or 3.
    """

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.stem = _convolution(in_channels, 32, kernel=3)
        blocks: list[nn.Module] = []
        width = 32
        for expansion, channels, repetitions, stride in _STAGES:
            for index in range(repetitions):
                blocks.append(_InvertedResidual(width, channels, expansion, stride if index == 0 else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(width, 1280, kernel=1)
        self.classifier = nn.Linear(1280, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images to (B, num_classes) logits; any H and W."""
        x = self.head(self.blocks(self.stem(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def _convolution(
    in_channels: int, channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    )
