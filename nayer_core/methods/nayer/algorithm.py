"""Algorithm 1: distil a teacher into a student without one real image.

for each epoch:                            lines 3 to 14
    for each round:                        lines 4 to 11, synthesis.py
        redraw the noisy layer, train it with the generator, add the best images to the bank
    after warm-up, for each student step:  lines 12 to 14, ../parts/student_training.py
        update the student on images drawn from the bank
"""

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import WarningEvent
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.hardware.machine import Machine
from nayer_core.images.memory_bank import MemoryBank
from nayer_core.methods.nayer.estimate import estimate_run
from nayer_core.methods.nayer.plan import plan_run
from nayer_core.methods.nayer.synthesis import Round, Synthesizer
from nayer_core.methods.parts.student_training import StudentTrainer
from nayer_core.running.checkpoint import below
from nayer_core.running.estimate import Estimate
from nayer_core.running.method import (
    Distillands,
    EpochDone,
    Plan,
    Samples,
    State,
    Step,
    require_finite,
    result_of,
)
from nayer_core.tasks.task import Task

MEASUREMENTS_AN_EPOCH = 20  # student losses reported; each waits for the device once
PROBED_STEPS = 2  # the optimiser allocates its state in the first, so the second one takes the most memory


@dataclass
class Position:
    """How far a run is; only finished epochs, rounds and steps are counted."""

    epoch: int = 0
    round: int = 0
    student_step: int = 0
    rounds_done: int = 0

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.round, self.student_step = self.epoch + 1, 0, 0


class Nayer:
    """NAYER on one teacher and one student: a `nayer_core.running.method.Method`.

    Args:
        distillands: teacher, student, label embeddings, image size, augmentation.
        config: the numbers of the method.
        task: what the networks' outputs mean.
        machine: where the steps are computed.
    """

    def __init__(self, distillands: Distillands, config: DistillConfig, task: Task, machine: Machine):
        self.distillands = distillands
        self.config = config
        self.task = task
        self.machine = machine
        self.synthesizer = Synthesizer(distillands, config, task, machine)
        self.trainer = StudentTrainer(distillands, config, task, machine)
        capacity = self.plan(config).bank_capacity(config.bank_capacity)
        self.bank = MemoryBank(capacity, distillands.input_size, distillands.label_embeddings.device)
        self.position = Position()
        self._losses: list[Tensor] = []  # the student's, since they were last reported

    def steps(self) -> Generator[Step | EpochDone, None, None]:
        """Algorithm 1 from line 3; each pass of the outer loop is an epoch."""
        position, config = self.position, self.config
        while position.epoch < config.warmup_epochs + config.epochs:  # line 3
            while position.round < self._rounds_of_this_epoch:  # line 4
                yield from self._synthesis_round()  # lines 5 to 11
            while not self._is_warming_up and position.student_step < config.student_steps:  # line 12
                yield self._student_step()  # lines 13 and 14
            position.next_epoch()
            yield EpochDone()

    def _synthesis_round(self) -> Iterator[Step]:
        kind, student = self.next_kind, None if self._is_warming_up else self.trainer.student
        with self._undone_unless_finished():
            if self._generator_is_due():
                self.synthesizer.redraw_generator()
            # Lines 5 to 10.
            result = yield from self.synthesizer.run_round(self.position.rounds_done, student)
        require_finite(self.synthesizer.generator.state_dict().values())
        values = _measured(result)
        if self._belongs_in_the_bank(values["ce"]):
            self.bank.add(result.images, result.labels)  # line 11
        self.position.round += 1
        self.position.rounds_done += 1
        yield Step(kind, whole=True, values=values)

    def _belongs_in_the_bank(self, label_loss: float) -> bool:
        """Whether the teacher sees the requested classes in a round, or the choice is this round or none."""
        keeps_all = not self.config.drop_failed_rounds
        return keeps_all or len(self.bank) == 0 or label_loss < self.task.uninformed_loss

    def _student_step(self) -> Step:
        self._losses.append(self.trainer.step(self.bank))
        self.position.student_step += 1
        return Step("student", whole=True, values=self._mean_loss_if_due())

    @property
    def _is_warming_up(self) -> bool:
        return self.position.epoch < self.config.warmup_epochs

    @property
    def _rounds_of_this_epoch(self) -> int:
        config = self.config
        return config.warmup_rounds_per_epoch if self._is_warming_up else config.rounds_per_epoch

    def _generator_is_due(self) -> bool:
        """Whether a new generator starts: every `generator_reset_every` epochs; 0 starts one in all."""
        life, position = self.config.generator_reset_every, self.position
        return position.round == 0 and (position.epoch % life == 0 if life else position.epoch == 0)

    @contextmanager
    def _undone_unless_finished(self) -> Iterator[None]:
        """Undo a round that is interrupted; it will be repeated from its beginning."""
        before = self.synthesizer.snapshot()
        try:
            yield
        except GeneratorExit:
            self.synthesizer.restore(before)
            raise

    def _mean_loss_if_due(self) -> dict[str, float]:
        steps = self.config.student_steps
        interval = math.ceil(steps / MEASUREMENTS_AN_EPOCH)
        if len(self._losses) < interval and self.position.student_step < steps:
            return {}
        mean = torch.stack(self._losses).mean().item()
        self._losses.clear()
        return {"student_loss": mean, "student_lr": self.trainer.learning_rate}

    @staticmethod
    def plan(config: DistillConfig) -> Plan:
        """Count the steps of each kind of a run with this configuration."""
        return plan_run(config)

    @staticmethod
    def estimate(spec: ResolvedSpec, embedding_dim: int) -> Estimate:
        """Estimate the multiplications of a run, and its memory."""
        return estimate_run(spec, embedding_dim)

    @property
    def student(self) -> nn.Module:
        """The network a client would get now; `trainer.student` is the one that is trained."""
        return self.trainer.distilled

    @property
    def epoch(self) -> int:
        """How many epochs are done, warm-up included."""
        return self.position.epoch

    @property
    def next_kind(self) -> str:
        """The kind of step that comes next."""
        if self._is_warming_up:
            return "warmup"
        return "adversarial" if self.position.round < self._rounds_of_this_epoch else "student"

    def state(self) -> State:
        """Everything but the bank that a bit-exact resume needs."""
        tensors = {f"synthesizer.{name}": value for name, value in self.synthesizer.snapshot().items()}
        tensors |= {f"trainer.{name}": value for name, value in self.trainer.state().items()}
        tensors |= {"losses": torch.stack(self._losses)} if self._losses else {}
        return State(tensors, {"position": asdict(self.position), "trainer": self.trainer.facts()})

    def restore(self, state: State) -> None:
        """Return to a state; the bank has been restored already."""
        self.synthesizer.restore(below(state.tensors, "synthesizer"))
        self.trainer.restore(below(state.tensors, "trainer"), state.facts["trainer"])
        self._losses = list(state.tensors.get("losses", torch.empty(0)).to(self.bank.images.device))
        for field in fields(Position):
            setattr(self.position, field.name, state.facts["position"][field.name])

    def adopt(self, config: DistillConfig) -> None:
        """Continue with other batch sizes or learning rates."""
        self.config = config
        self.synthesizer.adopt(config)
        self.trainer.adopt(config)

    def probe(self, batch: str, size: int) -> None:
        """Try the most expensive steps with another batch size; the method is not used afterwards."""
        self.adopt(self.config.model_copy(update={batch: size, "generator_steps": PROBED_STEPS}))
        if batch == "student_batch_size":
            for _ in range(PROBED_STEPS):
                self.trainer.step(self.bank)
            return
        self.synthesizer.redraw_generator()
        result = result_of(self.synthesizer.run_round(0, self.trainer.student))
        self.bank.add(result.images, result.labels)

    def samples(self, seed: int) -> Samples:
        """Two rounds of a fresh generator: one as in warm-up, the other against the student."""
        fresh = Synthesizer(self.distillands, self.config, self.task, self.machine.unshared(seed))
        fresh.redraw_generator()
        plain = result_of(fresh.run_round(0, None))
        provoking = result_of(fresh.run_round(1, self.student))
        distance = {"bn_distance": plain.terms["bn"].item()} if "bn" in plain.terms else {}
        return Samples(plain.images, provoking.images, distance)

    def warnings(self) -> list[WarningEvent]:
        """Return a warning for each part of the configuration that has no effect on these networks."""
        return self.trainer.warnings()

    def warm_up(self) -> dict[str, Tensor]:
        """The state after warm-up without the bank: generator, noisy layer, statistics, random numbers."""
        return self.synthesizer.snapshot()

    def begin_after_warm_up(self, tensors: dict[str, Tensor]) -> None:
        """Begin after the warm-up of another run."""
        self.synthesizer.restore(tensors)
        rounds = self.config.warmup_epochs * self.config.warmup_rounds_per_epoch
        self.position.epoch, self.position.rounds_done = self.config.warmup_epochs, rounds


def _measured(result: Round) -> dict[str, float]:
    values: dict[str, Any] = {name: term.item() for name, term in result.terms.items()}
    converged_after = result.converged_after.item()
    return values | ({"convergence_steps": converged_after} if math.isfinite(converged_after) else {})
