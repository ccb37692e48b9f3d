"""The small residual networks for 32 x 32 images of He et al. 2016 (arXiv:1512.03385, section 4.2).

ResNet-20, 32, 44, 56 and 110: depth 6n + 2, three stages of n blocks with 16, 32 and 64
channels. Shortcuts that change the shape have no weights ("option A"): every second pixel, and
zeros for the new channels.

Activations overwrite what a BatchNorm or a sum has just made, which nothing else reads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nayer_core.networks.initialisation import initialise


class _CifarBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.new_channels = channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.new_channels == 0:
            return x
        before = self.new_channels // 2  # half of the zero channels on either side
        strided = x[:, :, :: self.stride, :: self.stride]
        return F.pad(strided, (0, 0, 0, 0, before, self.new_channels - before))


class CifarResNet(nn.Module):
    """A residual network of depth 6n + 2 with 16, 32 and 64 channels.

    Args:
        depth: 20, 32, 44, 56 or 110 in the paper.
        num_classes: outputs.
        in_channels: 1 or 3.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images to (B, num_classes) logits; any H and W."""
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.linear(x)
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = _CifarBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(_CifarBlock(channels, channels, stride=1) for _ in range(blocks - 1)))
