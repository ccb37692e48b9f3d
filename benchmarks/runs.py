"""A run of NAYER with access to its parts, for benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.hardware.machine import Machine
from nayer_core.hardware.precision import choose_arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.measuring.evaluation import EvaluationSet, predict, share_equal
from nayer_core.methods.nayer.algorithm import Nayer
from nayer_core.methods.nayer.synthesis import Round
from nayer_core.running.method import Distillands, result_of
from nayer_core.running.run import Run
from nayer_core.tasks.classification import Classification


@dataclass(frozen=True)
class PreparedRun:
    """A run that has not begun, and its parts."""

    run: Run
    method: Nayer
    distillands: Distillands
    machine: Machine

    @property
    def is_past_warm_up(self) -> bool:
        """Whether the student has been trained."""
        return self.method.epoch > self.run.plan.warmup_epochs

    def make_round(self, index: int, student: nn.Module | None) -> Round:
        """Make the images of a round, which are not put into the bank."""
        return result_of(self.method.synthesizer.run_round(index, student))

    def accuracy(self, images: EvaluationSet) -> float:
        """Measure the student that a client would get, in float32."""
        exact = choose_arithmetic("fp32", self.machine.device)
        predictions = predict(self.run.student, images.images, self.distillands.augment, exact)
        return share_equal(predictions, images.labels)


def prepare(
    teacher: nn.Module,
    student: nn.Module,
    label_embeddings: Tensor,
    input_size: tuple[int, int, int],
    config: Any,
    *,
    normalization: tuple[Sequence[float], Sequence[float]],
    seed: int,
    emit: Any = lambda _event: None,
) -> PreparedRun:
    """Set a run up, ready to start.

    Args:
        teacher: frozen.
        student: freshly initialised.
        label_embeddings: (K, embedding_dim).
        input_size: (channels, height, width).
        config: a `DistillConfig`.
        normalization: mean and standard deviation of each channel in the teacher's training.
        seed: of the run.
        emit: receives its events.
    """
    device = label_embeddings.device
    mean, std = (torch.tensor(values, device=device) for values in normalization)
    augment = Augmentation(mean, std, config.crop_padding, config.flip)
    machine = Machine(choose_arithmetic(config.precision, device), seed)
    teacher, student = machine.place(teacher), machine.place(student)
    distillands = Distillands(teacher, student, label_embeddings, input_size, augment)
    method = Nayer(distillands, config, Classification(len(label_embeddings)), machine)
    return PreparedRun(Run(method, config, machine, emit), method, distillands, machine)
