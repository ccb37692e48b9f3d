"""One distillation of an MNIST teacher: real data that comes with a wheel, and runs of half a minute.

The teacher is the demo's (`examples.mnist_teacher`, seed 0); accuracy is measured on the 1,000
digits that it was not trained on either.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import runs
from benchmarks.runs import PreparedRun
from examples import mnist_teacher
from nayer_core.contract.methods import METHODS
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

SIZE = mnist_teacher.INPUT_SIZE
LABELS = mnist_teacher.LABELS
STUDENT = "wrn_10_1"
CPU = torch.device("cpu")  # networks this small wait for a GPU more than they gain


@functools.cache
def load_teacher() -> nn.Module:
    """Train the demo's teacher, the same on every call and, bit by bit, on one kind of machine."""
    training, _ = mnist_teacher.load_digits()
    return freeze(mnist_teacher.train_teacher(training)).to(memory_format=torch.channels_last)


@functools.cache
def load_images() -> EvaluationSet:
    """The 1,000 digits kept aside."""
    _, aside = mnist_teacher.load_digits()
    return EvaluationSet(torch.from_numpy(aside.images), torch.from_numpy(aside.labels))


@functools.cache
def label_codes(name: str) -> Tensor:
    """Codes of the ten digits.

    Args:
        name: `sbert`, `gaussian` or `one_hot`; with `+white` whitened over the classes. The
            published CLIP vectors do not cover digits.
    """
    encoder, _, whiten = name.partition("+")
    if encoder == "clip":
        sys.exit("The published CLIP vectors cover CIFAR, Tiny-ImageNet and ImageNet, not digits.")
    label_embeddings = text_encoders.embed(encoder, "a photo of a {label}", LABELS).label_embeddings
    return text_encoders.prepare(label_embeddings, whiten=whiten == "white")[0]


def prepare(
    preset: str, overrides: Mapping[str, Any], codes: str, seed: int, emit: Any = lambda _: None
) -> PreparedRun:
    """Set a run up, ready to start; arguments as `cifar10.prepare` takes them."""
    _, config = METHODS["nayer"].resolve_config(preset, overrides, SIZE)
    torch.manual_seed(seed)
    student = build(STUDENT, num_classes=len(LABELS), input_size=SIZE)  # first: it follows from the seed
    return runs.prepare(
        load_teacher(),
        student,
        label_codes(codes),
        SIZE,
        config,
        normalization=([mnist_teacher.MEAN], [mnist_teacher.STD]),
        seed=seed,
        emit=emit,
    )
