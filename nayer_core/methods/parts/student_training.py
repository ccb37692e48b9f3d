"""The student's side of an epoch: lines 12 to 14 of Algorithm 1."""

import copy
import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.hardware.cuda_graphs import Recorder
from nayer_core.hardware.optimizers import SGD
from nayer_core.hardware.precision import Arithmetic
from nayer_core.hardware.processes import ALONE, Alone
from nayer_core.methods.parts.attention import AttentionAlignment
from nayer_core.methods.parts.augmentation import Augmentation, cutmix
from nayer_core.methods.parts.losses import distillation_loss
from nayer_core.methods.parts.memory_bank import MemoryBank
from nayer_core.running.checkpoint import part

MOMENTUM = 0.9  # A.2


class StudentTrainer:
    """SGD on the distillation loss over the memory bank, with a cosine from `student_lr` down.

    Args:
        student: in training mode.
        teacher: frozen, in eval mode.
        input_size: (channels, height, width).
        config: learning rate, temperature and the like.
        augment: stands between the bank and the networks.
        arithmetic: number format.
        rng: source of everything random here.
        recorder: does the steps.
        processes: who shares the batches.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        input_size: tuple[int, int, int],
        config: DistillConfig,
        augment: Augmentation,
        arithmetic: Arithmetic,
        rng: torch.Generator,
        recorder: Recorder,
        processes: Alone = ALONE,
    ):
        self.processes = processes
        self.student = student
        self.teacher = teacher
        self.config = config
        self.augment = augment
        self.arithmetic = arithmetic
        self.rng = rng
        self.recorder = recorder
        self.steps_done = 0
        self.scaler = arithmetic.scaler()
        self.optimizer = SGD(
            student.parameters(),
            config.student_lr,
            momentum=MOMENTUM,
            weight_decay=config.student_weight_decay,
        )
        self.attention = AttentionAlignment(teacher, student, input_size) if config.attention_weight else None
        self._average = copy.deepcopy(student).requires_grad_(False) if config.student_averaging else None

    @property
    def distilled(self) -> nn.Module:
        """The student a client gets: the average of its weights over the latest steps, where one is kept."""
        return self.student if self._average is None else self._average

    def adopt(self, config: DistillConfig) -> None:
        """Go on with another batch size or learning rate."""
        self.config = config
        self.recorder.forget()

    @property
    def learning_rate(self) -> float:
        """What the cosine says for the next step; it moves at each step or after each epoch."""
        config = self.config
        if config.student_lr_schedule == "step":
            passed = self.steps_done / (config.epochs * config.student_steps)
        else:
            passed = (self.steps_done // config.student_steps) / config.epochs
        return config.student_lr_min + (config.student_lr - config.student_lr_min) * (
            (1 + math.cos(math.pi * passed)) / 2
        )

    def step(self, bank: MemoryBank) -> Tensor:
        """One student update on images drawn from the bank.

        Returns:
            The loss, a scalar on the device.
        """
        drawn = bank.sample(self.config.student_batch_size, self.rng)
        mix = self._cutmix_is_due()
        self.optimizer.lr = self.learning_rate
        self.optimizer.zero_grad()
        parameters = self.optimizer.parameters
        loss = self.recorder.run(
            ("student", mix), partial(self._loss_and_gradients, mix), (drawn,), parameters
        )
        self.processes.add_up(parameters)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type] # all it asks for is there
        self.scaler.update()
        self.steps_done += 1
        self._update_average()
        return loss.clone()

    def _loss_and_gradients(self, mix: bool, drawn: Tensor) -> Tensor:
        """Compare the student with the teacher on drawn images; leave the gradients with the student."""
        images = self.augment(drawn, self.rng)
        if mix:
            images = cutmix(images, self.rng)
        images = self.processes.share(images)
        watching = nullcontext() if self.attention is None else self.attention.watching()
        with self.arithmetic.autocast(), watching:
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            with self.processes.whole_batch_norm():
                student_logits = self.student(images)
            loss = distillation_loss(student_logits, teacher_logits, self.config.temperature)
            if self.attention:
                loss = loss + self.config.attention_weight * self.attention.distance()
        self.scaler.scale(self.processes.weigh(loss, len(drawn))).backward()
        return self.processes.totals({"loss": loss}, len(drawn))["loss"]

    def state(self) -> dict[str, Tensor]:
        """The student with its buffers, and the optimiser's momentum."""
        state = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        for name, momentum in self._momenta().items():
            state[f"momentum.{name}"] = momentum
        if self._average is not None:
            state |= {f"average.{name}": value for name, value in self._average.state_dict().items()}
        return state

    def facts(self) -> dict[str, Any]:
        """What else a resume needs, as JSON values."""
        return {"steps_done": self.steps_done, "scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.student.load_state_dict(part(state, "student"))
        if self._average is not None:
            self._average.load_state_dict(part(state, "average"))
        self.optimizer.zero_grad()
        for name, momentum in self._momenta().items():
            momentum.copy_(state[f"momentum.{name}"])
        self.steps_done = facts["steps_done"]
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])

    def _momenta(self) -> dict[str, Tensor]:
        names = (name for name, _ in self.student.named_parameters())
        return dict(zip(names, self.optimizer.momenta, strict=True))

    @torch.no_grad()
    def _update_average(self) -> None:
        """Draw the average towards the student, less and less at first: its random beginning shall fade."""
        if self._average is None:
            return
        kept = min(self.config.student_averaging, (1 + self.steps_done) / (10 + self.steps_done))
        latest, average = self.student.state_dict(), self._average.state_dict()
        moving = [name for name, value in average.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in moving], [latest[name] for name in moving], 1 - kept)
        for name in average.keys() - set(moving):
            average[name].copy_(latest[name])

    def _cutmix_is_due(self) -> bool:
        """Spread the share evenly over the steps, without a draw."""
        share = self.config.cutmix
        return math.floor((self.steps_done + 1) * share) > math.floor(self.steps_done * share)
