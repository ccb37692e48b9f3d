"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146, Table 1).

WRN-d-k has depth d = 6n + 4: three stages of n blocks with 16k, 32k and 64k channels, each
convolution after its normalisation and activation.

Activations overwrite what a BatchNorm or a sum has just made, which nothing else reads.
"""

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from nayer_core.contract import catalog
from nayer_core.networks.initialisation import initialise


class _WideBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same_shape = in_channels == channels and stride == 1
        self.shortcut = None if same_shape else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu_(self.bn1(x))
        out = self.conv2(F.relu_(self.bn2(self.conv1(active))))
        # A shortcut that changes the shape starts after the activation, as in the authors' code.
        total: Tensor = out + (x if self.shortcut is None else self.shortcut(active))
        return total


class _WideStage(nn.Module):
    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int):
        super().__init__()
        first = _WideBlock(in_channels, channels, stride)
        rest = (_WideBlock(channels, channels, stride=1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """WRN-`depth`-`width`, without dropout.

    Args:
        depth: 6n + 4.
        width: k, the factor on 16, 32 and 64 channels.
        num_classes: outputs.
        in_channels: 1 or 3.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int):
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = _WideStage(16, 16 * width, blocks, stride=1)
        self.block2 = _WideStage(16 * width, 32 * width, blocks, stride=2)
        self.block3 = _WideStage(32 * width, 64 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images to (B, num_classes) logits; any H and W."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(F.relu_(self.bn1(x)), 1).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def names_from(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Derive `wrn_d_k` from the blocks and channels of a state dict; empty if it is no such network.

    Args:
        shapes: name -> shape of a state dict.
    """
    blocks = [name for name in shapes if re.fullmatch(r"block1\.layer\.\d+\.conv1\.weight", name)]
    last = shapes.get("bn1.weight", ())
    if not blocks or len(last) != 1 or last[0] % 64 != 0:
        return ()
    name = f"wrn_{6 * len(blocks) + 4}_{last[0] // 64}"
    return (name,) if catalog.is_wide_resnet(name) else ()
