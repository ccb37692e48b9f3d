"""One distillation of a real CIFAR-10 teacher, as every benchmark here runs it.

The teacher is a published ResNet-20 (91.7 % on CIFAR-10); accuracy is measured on 2,000 test images
that went through JPEG, on which the teacher has 80.95 %. Both are outside the project, in
`../shared/data`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import runs
from benchmarks.runs import PreparedRun
from nayer_core.commands.teacher_reading import read_teacher
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import Event, MetricsEvent
from nayer_core.contract.methods import METHODS
from nayer_core.hardware.precision import Arithmetic, choose_arithmetic
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

DATA = Path(__file__).parents[2] / "shared" / "data"
SIZE = (3, 32, 32)
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of this teacher's training
STUDENT = "wrn_16_1"


@dataclass
class RunResult:
    """The result of a run.

    Attributes:
        accuracy: of the student after the last epoch, on the 2,000 images.
        seconds: of the run, without loading and measuring.
        curve: (seconds, accuracy) after each epoch, if `until` is given.
        last: the newest value of every metric.
    """

    accuracy: float
    seconds: float
    curve: list[tuple[float, float]] = field(default_factory=list)
    last: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CifarTeacher:
    """A teacher of CIFAR-10.

    Attributes:
        path: in any layout that the service takes.
        architecture: its name, or `auto`.
        mean: what its training subtracted from images in [0, 1], by channel.
        std: what it divided them by.
    """

    path: Path = DATA / "cifar10_resnet20.pt"
    architecture: str = "auto"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def load(self) -> nn.Module:
        """The network, frozen."""
        with tempfile.TemporaryDirectory() as scratch:
            teacher = read_teacher(
                self.path, self.architecture, num_classes=10, input_size=SIZE, scratch=Path(scratch)
            )
        return freeze(teacher.network).to(device()).to(memory_format=torch.channels_last)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Let a command line name one."""
        parser.add_argument("--teacher", type=Path, default=cls.path, help="of CIFAR-10")
        parser.add_argument("--architecture", default=cls.architecture, help="of the teacher")
        parser.add_argument("--mean", nargs=3, type=float, default=cls.mean, help="of its training images")
        parser.add_argument("--std", nargs=3, type=float, default=cls.std, help="likewise")

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """The one that a command line names."""
        return cls(args.teacher, args.architecture, tuple(args.mean), tuple(args.std))


PUBLISHED_TEACHER = CifarTeacher()


def require_data() -> None:
    """End the program where the data is absent."""
    if not DATA.is_dir():
        sys.exit(f"The teacher and the images of this benchmark are not at {DATA}.")


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_teacher() -> nn.Module:
    """The published ResNet-20, frozen."""
    return PUBLISHED_TEACHER.load()


def load_images() -> EvaluationSet:
    """The 2,000 test images."""
    arrays = np.load(DATA / "cifar10_eval.npz")
    return EvaluationSet(torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]))


def label_codes(name: str) -> Tensor:
    """Codes of the ten labels.

    Args:
        name: `clip` (the vectors that the paper's authors published), `sbert`, `gaussian` or
            `one_hot`; with `+white` whitened over the classes.
    """
    encoder, _, whiten = name.partition("+")
    if encoder == "clip":
        (label_embeddings,) = load_file(DATA / "cifar10_clip_vit_b32_lte.safetensors").values()
    else:
        label_embeddings = text_encoders.embed(encoder, "a photo of a {label}", LABELS).label_embeddings
    return text_encoders.prepare(label_embeddings.float(), whiten=whiten == "white")[0]


def arithmetic(config: DistillConfig) -> Arithmetic:
    """The number format of a run."""
    return choose_arithmetic(config.precision, device())


def prepare(
    preset: str,
    overrides: Mapping[str, Any],
    codes: str,
    seed: int,
    emit: Any = lambda _: None,
    teacher: CifarTeacher = PUBLISHED_TEACHER,
) -> PreparedRun:
    """Set a run up, ready to start."""
    _, config = METHODS["nayer"].resolve_config(preset, overrides, SIZE)
    torch.manual_seed(seed)
    student = build(STUDENT, num_classes=10, input_size=SIZE)  # first: its weights follow from the seed
    return runs.prepare(
        teacher.load(),
        student,
        label_codes(codes).to(device()),
        SIZE,
        config,
        normalization=(teacher.mean, teacher.std),
        seed=seed,
        emit=emit,
    )


def run(
    preset: str,
    overrides: Mapping[str, Any],
    codes: str,
    seed: int,
    *,
    until: float | None = None,
    teacher: CifarTeacher = PUBLISHED_TEACHER,
) -> RunResult:
    """Distil once.

    Args:
        preset: where the configuration starts from.
        overrides: its fields that differ.
        codes: a name of `label_codes`.
        seed: of the run.
        until: measure after every epoch and stop at this accuracy; None measures at the end alone.
        teacher: whom to learn from.
    """
    result = RunResult(0.0, 0.0)

    def emit(event: Event) -> None:
        if isinstance(event, MetricsEvent):
            result.last.update(event.values)

    prepared = prepare(preset, overrides, codes, seed, emit, teacher)
    images, measuring = load_images(), 0.0
    run_start = time.perf_counter()

    def measure() -> None:
        nonlocal measuring
        start = time.perf_counter()
        result.accuracy = prepared.accuracy(images)
        result.seconds = start - run_start - measuring
        measuring += time.perf_counter() - start
        result.curve.append((round(result.seconds, 1), result.accuracy))

    def after_epoch() -> None:
        if until is not None and prepared.is_past_warm_up:
            measure()

    prepared.run.go_on(
        after_epoch=after_epoch,
        should_stop=lambda: until is not None and result.accuracy >= until,
    )
    if until is None or not result.curve:
        measure()
    return result
