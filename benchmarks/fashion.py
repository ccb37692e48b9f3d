"""Fashion-MNIST from Debian's package `dataset-fashion-mnist`: 70,000 labelled images of 28 x 28 pixels."""

import functools
import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nayer_core.measuring.evaluation import EvaluationSet

FOLDER = Path("/usr/share/datasets/fashion-mnist")
INPUT_SIZE = (1, 28, 28)
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, in [0, 1]
LABELS = (
    "t-shirt",
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


def _read(name: str, header: int) -> Tensor:
    content = gzip.decompress((FOLDER / name).read_bytes())
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())
