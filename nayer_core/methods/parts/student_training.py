"""The student's side of an epoch: lines 12 to 14 of Algorithm 1."""

import copy
import functools
import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.contract.config import MethodConfig
from nayer_core.contract.events import WarningEvent
from nayer_core.hardware.machine import Losses, Machine
from nayer_core.hardware.optimizers import SGD
from nayer_core.images.augmentation import cutmix
from nayer_core.images.memory_bank import MemoryBank
from nayer_core.images.procedural import procedural_images
from nayer_core.methods.parts.attention import AttentionAlignment
from nayer_core.methods.parts.image_priors import PROCEDURAL_IMAGES, weight_of
from nayer_core.running.checkpoint import below
from nayer_core.running.method import Distillands
from nayer_core.tasks.task import Task

MOMENTUM = 0.9  # A.2
POOL_SIZE = 2_000  # procedural images, from which each step draws its share


class StudentTrainer:
    """SGD on the distillation loss over the memory bank; a cosine lowers the rate from `student_lr`.

    Args:
        distillands: the student, in training mode, and the teacher it learns from.
        config: learning rate, temperature and the like.
        task: compares the student's outputs with the teacher's.
        machine: where the steps are computed.
    """

    def __init__(self, distillands: Distillands, config: MethodConfig, task: Task, machine: Machine):
        self.student = distillands.student.train()
        self.teacher = distillands.teacher
        self.augment = distillands.augment
        self.input_size = distillands.input_size
        self.config = config
        self.task = task
        self.machine, self.rng = machine, machine.rng
        self.steps_done = 0
        self.procedural_share = weight_of(PROCEDURAL_IMAGES, self.teacher, config)
        self.optimizer = SGD(
            self.student.parameters(),
            config.student_lr,
            momentum=MOMENTUM,
            weight_decay=config.student_weight_decay,
        )
        self.attention: AttentionAlignment | None = None
        if config.attention_weight:
            self.attention = AttentionAlignment(self.teacher, self.student, distillands.input_size)
        self._average = (
            copy.deepcopy(self.student).requires_grad_(False) if config.student_averaging else None
        )

    @property
    def distilled(self) -> nn.Module:
        """The student that a client gets: with `student_averaging`, the average of its weights over time."""
        return self.student if self._average is None else self._average

    @property
    def learning_rate(self) -> float:
        """The next step's rate; the cosine moves at each step or after each epoch (`student_lr_schedule`)."""
        config = self.config
        if config.student_lr_schedule == "step":
            done = self.steps_done / (config.epochs * config.student_steps)
        else:
            done = (self.steps_done // config.student_steps) / config.epochs
        return config.student_lr_min + (config.student_lr - config.student_lr_min) * (
            (1 + math.cos(math.pi * done)) / 2
        )

    def step(self, bank: MemoryBank) -> Tensor:
        """Update the student once on images drawn from the bank.

        Returns:
            The loss, a scalar on the device.
        """
        images = self._batch_from(bank)  # line 13: (B, H, W, C) bytes
        views = self.augment.draw(len(images), self.rng)  # (B, 3)
        mix = self._cutmix_is_due()
        box = torch.rand(3, generator=self.rng, device=images.device) if mix else views.new_zeros(3)
        self.optimizer.lr = self.learning_rate
        losses = self.machine.update(  # line 14
            self.optimizer, partial(self._loss, mix), whole=(images, views, box), kind=("student", mix)
        )
        self.steps_done += 1
        self._update_average()
        return losses.total

    def _batch_from(self, bank: MemoryBank) -> Tensor:
        """Draw a batch from the bank and, with `procedural_share`, from the procedural images."""
        batch_size = self.config.student_batch_size
        number = round(self.procedural_share * batch_size)
        if number == 0:
            return bank.sample(batch_size, self.rng)
        pool = self._procedural
        chosen = torch.randint(len(pool), (number,), generator=self.rng, device=pool.device)
        images = torch.cat([bank.sample(batch_size - number, self.rng), pool[chosen]])
        return images[torch.randperm(batch_size, generator=self.rng, device=images.device)]

    @functools.cached_property
    def _procedural(self) -> Tensor:
        """(POOL_SIZE, H, W, C) bytes; every run of a teacher has the same, so none are saved."""
        mean, std = self.augment.mean.tolist(), self.augment.std.tolist()
        images = procedural_images(POOL_SIZE, self.input_size, mean, std, seed=0)
        return images.to(self.machine.device)

    def _loss(self, mix: bool, images: Tensor, views: Tensor, box: Tensor) -> Losses:
        """Compare the student with the teacher on augmented images.

        Args:
            mix: whether to apply CutMix.
            images: (B, H, W, C) bytes.
            views: (B, 3) how they are augmented.
            box: (3,) of CutMix.
        """
        whole = self.augment(images, views)  # (B, H, W, C) -> (B, C, H, W)
        inputs = self.machine.own_rows(cutmix(whole, box) if mix else whole)  # (b, C, H, W)
        with nullcontext() if self.attention is None else self.attention.watching():
            with torch.no_grad():
                teacher_logits = self.teacher(inputs)  # (b, K)
            student_logits = self.student(inputs)  # (b, K)
        total = self.task.distillation_loss(student_logits, teacher_logits, self.config.temperature)
        if self.attention:
            total = total + self.config.attention_weight * self.attention.distance()
        return Losses(total)

    def adopt(self, config: MethodConfig) -> None:
        """Continue with another batch size or learning rate."""
        self.config = config

    def warnings(self) -> list[WarningEvent]:
        """Return a warning for each field of the configuration that has no effect on these networks."""
        warnings = []
        if self.attention is not None and not self.attention:
            message = (
                "Teacher and student have no features of the same height and width, "
                "so attention_weight has no effect."
            )
            warnings.append(WarningEvent(code="attention_unused", message=message))
        if self.config.procedural_share and not self.procedural_share:
            message = "The teacher has BatchNorm, so procedural_share has no effect."
            warnings.append(WarningEvent(code="procedural_unused", message=message))
        return warnings

    def state(self) -> dict[str, Tensor]:
        """The student with its buffers, its average, and the optimiser's momentum."""
        state = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        for name, momentum in self._momenta().items():
            state[f"momentum.{name}"] = momentum
        if self._average is not None:
            state |= {f"average.{name}": value for name, value in self._average.state_dict().items()}
        return state

    def facts(self) -> dict[str, Any]:
        """The part of the state that is JSON values, not tensors."""
        return {"steps_done": self.steps_done, "optimizer": self.optimizer.facts()}

    def restore(self, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Return to a saved state."""
        self.student.load_state_dict(below(state, "student"))
        if self._average is not None:
            self._average.load_state_dict(below(state, "average"))
        self.optimizer.zero_grad()
        for name, momentum in self._momenta().items():
            momentum.copy_(state[f"momentum.{name}"])
        self.steps_done = facts["steps_done"]
        self.optimizer.restore(facts["optimizer"])

    def _momenta(self) -> dict[str, Tensor]:
        names = (name for name, _ in self.student.named_parameters())
        return dict(zip(names, self.optimizer.momenta, strict=True))

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the student; fast at first, so that the random initial weights fade."""
        if self._average is None:
            return
        share = min(self.config.student_averaging, (1 + self.steps_done) / (10 + self.steps_done))
        latest, average = self.student.state_dict(), self._average.state_dict()
        floats = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in floats], [latest[name] for name in floats], 1 - share)
        for name in average.keys() - set(floats):
            average[name].copy_(latest[name])

    def _cutmix_is_due(self) -> bool:
        """Spread the share of CutMix steps evenly over all steps, without random numbers."""
        share = self.config.cutmix
        return math.floor((self.steps_done + 1) * share) > math.floor(self.steps_done * share)
