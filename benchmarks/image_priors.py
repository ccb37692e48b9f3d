"""What may guide the images if the teacher has no BatchNorm, side by side.

    python -m benchmarks.image_priors [NAME ...] [--case digits] [--seeds 0 1 2]

Cases: `digits`, a LeNet-5 for MNIST, measured on the 1,000 digits kept aside; `fashion`, a small vision
transformer for Fashion-MNIST, measured on its 10,000 test images. The student is a wrn_10_1, the label codes
are Gaussian. One row a choice; the others that were tried are in `tried_priors`. Every row has the same
number of steps. Rows already in the results file for a seed are not run again.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks import fashion, machine, runs, tables, tried_priors
from benchmarks.procedural import procedural_images
from benchmarks.runs import PreparedRun
from benchmarks.trials import EVERYDAY
from examples import mnist_teacher
from nayer_core.contract.methods import METHODS
from nayer_core.hardware.machine import Losses
from nayer_core.hardware.precision import choose_arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet, predict, share_equal
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

RESULTS = Path(__file__).parent / "results" / "image_priors.jsonl"
STUDENT, INPUT_SIZE = "wrn_10_1", (1, 28, 28)
CPU = torch.device("cpu")
# The demo's configuration when the prior was chosen, with 8 epochs in place of 12; one thread for torch.
CONFIG: dict[str, Any] = {
    **EVERYDAY,
    "epochs": 8,
    "warmup_epochs": 1,
    "warmup_rounds_per_epoch": 3,
    "generator_steps": 20,
    "synthesis_batch_size": 100,
    "student_averaging": 0.97,
    "flip": False,
    "crop_padding": 2,
    "student_steps": 50,
    "student_batch_size": 128,
    "generator_width": 32,
    "noise_dim": 256,
    "generator_lr": 0.01,
    "student_lr": 0.1,
}


@dataclass(frozen=True)
class Case:
    """A teacher without BatchNorm, and real images to measure on.

    Args:
        teacher: trains it; frozen, the same on every call.
        images: that the teacher has not seen.
        mean: of the training images in [0, 1].
        std: of the same.
        flip: whether a mirrored image keeps its class.
    """

    teacher: Callable[[], nn.Module]
    images: Callable[[], EvaluationSet]
    mean: float
    std: float
    flip: bool

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and deviation by channel."""
        return [self.mean], [self.std]

    def accuracy(self, network: nn.Module) -> float:
        """Measure a network in float32."""
        augment = Augmentation(torch.tensor([self.mean]), torch.tensor([self.std]), 0, flip=False)
        images = self.images()
        predictions = predict(network, images.images, augment, choose_arithmetic("fp32", CPU))
        return share_equal(predictions, images.labels)


@dataclass(frozen=True)
class Row:
    """One choice.

    Args:
        config: fields of `DistillConfig`, beside those of `CONFIG`.
        terms: of `tried_priors`, with their weights.
        halved: the generator makes images of half the size, which are upsampled.
        procedural: share of the bank that procedural images replace.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[tried_priors.Term, float] = field(default_factory=dict)
    halved: bool = False
    procedural: float = 0.0


NO_PRIOR = {"image_prior_weight": 0.0}
ROWS: dict[str, Row] = {
    "none": Row(NO_PRIOR),
    "input statistics 0.3": Row(),
    "input statistics 1": Row({"image_prior_weight": 1.0}),
    "total variation 0.1": Row(NO_PRIOR, {tried_priors.total_variation: 0.1}),
    "total variation 1": Row(NO_PRIOR, {tried_priors.total_variation: 1.0}),
    "l2 0.1": Row(NO_PRIOR, {tried_priors.squares: 0.1}),
    "activation 0.1": Row(NO_PRIOR, {tried_priors.activation: 0.1}),
    "feature target 1": Row(terms={tried_priors.feature_target: 1.0}),
    "feature difference 1": Row(terms={tried_priors.feature_difference: 1.0}),
    "roughness 0.3": Row(terms={tried_priors.excess_roughness: 0.3}),
    "half resolution": Row(halved=True),
    "adversary 0.3": Row({"adv_weight": 0.3}),
    "no adversary": Row({"adv_weight": 0.0}),
    "procedural 0.25": Row(procedural=0.25),
    "procedural 0.5": Row(procedural=0.5),
    "procedural alone": Row(procedural=1.0),
}
