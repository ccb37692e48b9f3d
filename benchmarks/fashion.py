"""Fashion-MNIST from Debian's package `dataset-fashion-mnist`: 70,000 labelled images of 28 x 28 pixels."""

import functools
import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

FOLDER = Path("/usr/share/datasets/fashion-mnist")
INPUT_SIZE = (1, 28, 28)
TRAINED_ON, EPOCHS, BATCH_SIZE, PEAK_LEARNING_RATE = 20_000, 5, 128, 2e-3
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, in [0, 1]
LABELS = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@functools.cache
def load(part: str) -> EvaluationSet:
    """Images, (N, 28, 28, 1) uint8, and labels.

    Args:
        part: `train`, 60,000 images, or `t10k`, 10,000.
    """
    if not FOLDER.exists():
        sys.exit(f"{FOLDER} is not there: apt-get install dataset-fashion-mnist")
    images = _read(f"{part}-images-idx3-ubyte.gz", header=16).view(-1, 28, 28, 1)
    return EvaluationSet(images, _read(f"{part}-labels-idx1-ubyte.gz", header=8).long())


def vision_transformer() -> nn.Module:
    """Three blocks, 49 patches, 66,000 parameters."""
    return timm.models.VisionTransformer(
        img_size=28,
        patch_size=4,
        in_chans=1,
        num_classes=len(LABELS),
        embed_dim=48,
        depth=3,
        num_heads=3,
        mlp_ratio=2.0,
    )


def lenet5() -> nn.Module:
    """The network of the case `digits`."""
    return build("lenet5", num_classes=len(LABELS), input_size=INPUT_SIZE)


@functools.cache
def load_teacher(untrained: Callable[[], nn.Module]) -> nn.Module:
    """Train a network on 20,000 images; about a minute."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    network = untrained()
    training = load("train")
    images = ((training.images[:TRAINED_ON].float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    steps = TRAINED_ON // BATCH_SIZE * EPOCHS
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(TRAINED_ON, generator=rng).split(BATCH_SIZE)[: steps // EPOCHS]:
            flipped = images[batch].flip(3) if torch.rand((), generator=rng) < 0.5 else images[batch]
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(flipped), training.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return freeze(network.eval())


def _read(name: str, header: int) -> Tensor:
    content = gzip.decompress((FOLDER / name).read_bytes())
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())
