"""ResNet-18, 34 and 50 (He et al. 2016, arXiv:1512.03385, Table 1) for small images.

The stem is one 3 x 3 convolution without pooling, as is usual for 32 x 32 images; everything
after it is the ImageNet network. Names of weights are torchvision's, so only the shape of
`conv1` differs between the two.

Activations overwrite what a BatchNorm or a sum has just made, which nothing else reads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nayer_core.networks.initialisation import initialise


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + self.downsample(x))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _projection(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu_(out + self.downsample(x))


# Depth -> the block and how many of them each of the four stages has.
_DEPTHS: dict[int, tuple[type[_BasicBlock] | type[_Bottleneck], tuple[int, int, int, int]]] = {
    18: (_BasicBlock, (2, 2, 2, 2)),
    34: (_BasicBlock, (3, 4, 6, 3)),
    50: (_Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A residual network of four stages with 64 to 512 channels (50: 256 to 2048).

    Args:
        depth: 18, 34 or 50.
        num_classes: outputs.
        in_channels: 1 or 3.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int):
        super().__init__()
        block, counts = _DEPTHS[depth]
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, counts[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, counts[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, counts[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, counts[3], stride=2)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images to (B, num_classes) logits; any H and W."""
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def _stage(
    block: type[_BasicBlock] | type[_Bottleneck], in_channels: int, width: int, count: int, stride: int
) -> nn.Sequential:
    first = block(in_channels, width, stride)
    rest = (block(width * block.expansion, width, stride=1) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
