"""The smallest method: a student learns on Gaussian noise. It shows how one is added, and does not ship."""

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.contract.config import MethodConfig
from nayer_core.contract.events import Phase, WarningEvent
from nayer_core.contract.methods import METHODS, MethodEntry
from nayer_core.contract.presets import Preset
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.hardware.machine import Machine
from nayer_core.images.memory_bank import MemoryBank, to_bytes
from nayer_core.methods.parts.student_training import StudentTrainer
from nayer_core.running.checkpoint import below
from nayer_core.running.estimate import Estimate
from nayer_core.running.method import Distillands, EpochDone, Plan, Samples, State, Step, StepPlan
from nayer_core.tasks.task import Task


class Noise:
    """Fill the bank with one batch of noise an epoch, and train the student on it."""

    next_kind = "student"

    def __init__(self, distillands: Distillands, config: MethodConfig, task: Task, machine: Machine):
        self.config, self.machine, self.size = config, machine, distillands.input_size
        self.trainer = StudentTrainer(distillands, config, task, machine)
        capacity = self.plan(config).bank_capacity(config.bank_capacity)
        self.bank = MemoryBank(capacity, distillands.input_size, machine.device)
        self.epoch = self.student_step = 0

    @staticmethod
    def plan(config: MethodConfig) -> Plan:
        batch, steps = config.student_batch_size, config.epochs * config.student_steps
        student = StepPlan(steps, batch, "student_batch_size", Phase.DISTILL)
        return Plan({"student": student}, config.epochs, 0, config.epochs * batch, batch)

    @staticmethod
    def estimate(spec: ResolvedSpec, embedding_dim: int) -> Estimate:
        return Estimate(spec.config.epochs * spec.config.student_steps, {"student_step": embedding_dim})

    def steps(self) -> Generator[Step | EpochDone, None, None]:
        while self.epoch < self.config.epochs:
            if self.student_step == 0:
                images = self._noise(self.machine.rng)
                self.bank.add(images, torch.zeros(len(images), dtype=torch.int64))
            while self.student_step < self.config.student_steps:
                loss = self.trainer.step(self.bank)
                self.student_step += 1
                yield Step("student", whole=True, values={"student_loss": loss.item()})
            self.epoch, self.student_step = self.epoch + 1, 0
            yield EpochDone()

    def _noise(self, rng: torch.Generator) -> Tensor:
        shape = (self.config.student_batch_size, *self.size)
        noise = torch.randn(shape, generator=rng, device=rng.device)
        return to_bytes((0.5 + 0.25 * noise).clamp(0, 1))

    @property
    def student(self) -> nn.Module:
        return self.trainer.distilled

    def state(self) -> State:
        tensors = {f"trainer.{name}": value for name, value in self.trainer.state().items()}
        facts = {"epoch": self.epoch, "student_step": self.student_step, "trainer": self.trainer.facts()}
        return State({**tensors, "rng": self.machine.rng.get_state()}, facts)

    def restore(self, state: State) -> None:
        self.trainer.restore(below(state.tensors, "trainer"), state.facts["trainer"])
        self.machine.rng.set_state(state.tensors["rng"])
        self.epoch, self.student_step = state.facts["epoch"], state.facts["student_step"]

    def adopt(self, config: MethodConfig) -> None:
        self.config = config
        self.trainer.adopt(config)

    def probe(self, batch: str, size: int) -> None:
        self.adopt(self.config.model_copy(update={batch: size}))
        self.trainer.step(self.bank)

    def samples(self, seed: int) -> Samples:
        noise = self._noise(torch.Generator(self.machine.device).manual_seed(seed))
        return Samples(noise, noise)

    def warnings(self) -> list[WarningEvent]:
        return []

    def warm_up(self) -> dict[str, Tensor]:
        return {}

    def begin_after_warm_up(self, tensors: dict[str, Tensor]) -> None:
        raise AssertionError(f"no warm-up to replace with {sorted(tensors)}")


_CONFIG: dict[str, Any] = {"epochs": 3, "student_steps": 4, "student_batch_size": 16, "flip": False}
_PRESET = Preset("A floor for other methods.", MethodConfig(**_CONFIG))
METHODS["noise"] = MethodEntry("noise", MethodConfig, {"short": _PRESET}, "short", f"{__name__}:Noise")
