"""Algorithm 1: distil a teacher into a student without one real image.

for each epoch:
    for each round:                        synthesis.py
        redraw the noisy layer, train it with the generator, keep the best images in the bank
    after warm-up, for each student step:  student_training.py
        update the student on images drawn from the bank
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import Emit, MetricsEvent, Phase, PhaseEvent, ProgressEvent, WarningEvent
from nayer_core.hardware.cuda_graphs import Recorder
from nayer_core.hardware.precision import Arithmetic
from nayer_core.hardware.processes import ALONE, Alone
from nayer_core.methods.nayer.synthesis import Round, Synthesizer
from nayer_core.methods.parts.augmentation import Augmentation
from nayer_core.methods.parts.memory_bank import MemoryBank, images_a_round, images_made
from nayer_core.methods.parts.student_training import StudentTrainer
from nayer_core.running.adaptation import Part
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.progress import Step
from nayer_core.running.run_state import RunState, Saver

MEASUREMENTS_AN_EPOCH = 20  # student losses reported; each waits for the device once


class StopRequested(Exception):
    """Raised inside a run to leave it; the state of the last whole step is kept."""


class Distillation(RunState):
    """One run of Algorithm 1.

    Args:
        teacher: frozen, in eval mode.
        student: freshly initialised.
        lte: (K, embedding_dim) label-text embeddings.
        input_size: (channels, height, width).
        config: the numbers of the method.
        augment: crop, mirror, normalisation.
        arithmetic: device and number format.
        seed: everything random follows from it.
        emit: receives the run's events.
        processes: who shares the batches.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        lte: Tensor,
        input_size: tuple[int, int, int],
        config: DistillConfig,
        augment: Augmentation,
        arithmetic: Arithmetic,
        seed: int,
        emit: Emit,
        processes: Alone = ALONE,
    ):
        self.lte = lte
        self.augment = augment
        self.arithmetic = arithmetic
        self.emit = emit
        self.student = student.train()
        self.rng = torch.Generator(arithmetic.device).manual_seed(seed)
        recorder = Recorder(arithmetic, self.rng, processes)
        capacity = min(max(config.bank_capacity, images_a_round(config)), images_made(config))
        super().__init__(
            config,
            Synthesizer(teacher, lte, input_size, config, augment, arithmetic, self.rng, recorder, processes),
            StudentTrainer(
                student, teacher, input_size, config, augment, arithmetic, self.rng, recorder, processes
            ),
            MemoryBank(capacity, input_size, arithmetic.device),
        )
        self._announced: Phase | None = None
        if config.attention_weight and not self.trainer.attention:
            message = (
                "Teacher and student have no features of the same height and width, "
                "so attention_weight has no effect."
            )
            emit(WarningEvent(code="attention_unused", message=message))

    @property
    def phase(self) -> Phase:
        """Whether the run still warms up or already trains the student."""
        return Phase.WARMUP if self.position.epoch < self.config.warmup_epochs else Phase.DISTILL

    @property
    def part(self) -> Part:
        """Whether the present epoch has rounds left, or the student's steps have begun."""
        warming_up, config = self.phase is Phase.WARMUP, self.config
        rounds = config.warmup_rounds_per_epoch if warming_up else config.rounds_per_epoch
        return "synthesis" if self.position.round < rounds else "student"

    def run(
        self,
        *,
        checkpoints: CheckpointFolder | None = None,
        checkpoint_seconds: float = 60.0,
        after_epoch: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Go on from where the run is to its end, or to where it is told to stop.

        `recovery.Recovery` does the same and gets over what `diverged` and a full device are.

        Args:
            checkpoints: where the state is saved, at intervals and when stopped.
            checkpoint_seconds: time between two checkpoints.
            after_epoch: called when an epoch is done; what it measures counts as no step's time.
            should_stop: asked after every step.

        Returns:
            True at the end; False where `should_stop` said so, with the state saved.

        Raises:
            TrainingError: `diverged`, where a loss or a weight is no number any more.
        """
        self._saver = Saver(self, checkpoints, checkpoint_seconds, self.emit)
        self._should_stop = should_stop
        try:
            while self.position.epoch < self.config.warmup_epochs + self.config.epochs:
                self._run_epoch()
                after_epoch()
                self.progress.pause()
            self.require_finite(self.trainer.state().values())
        except StopRequested:
            self._saver.save()
            return False
        return True

    def _run_epoch(self) -> None:
        """Lines 4 to 14 of Algorithm 1."""
        position = self.position
        warming_up = self.phase is Phase.WARMUP
        self._announce_phase()
        while self.part == "synthesis":
            made = self._run_round(None if warming_up else self.student)
            self.require_finite(self.synthesizer.generator.state_dict().values())
            self.bank.add(made.images, made.labels)
            position.round += 1
            position.rounds_done += 1
            self.report(_numbers(made))
            self._saver.save_if_due()
        if not warming_up:
            self._train_student()
        position.epoch, position.round, position.student_step = position.epoch + 1, 0, 0

    def _run_round(self, student: nn.Module | None) -> Round:
        kind = Step.WARMUP if student is None else Step.ADVERSARIAL
        with self._undone_if_stopped(kind):
            if self._generator_is_due():
                self.synthesizer.redraw_generator()
            return self.synthesizer.run_round(
                self.position.rounds_done, student, lambda: self._after_generator_step(kind)
            )

    @contextlib.contextmanager
    def _undone_if_stopped(self, kind: Step) -> Iterator[None]:
        """Forget an interrupted round: it is done anew, from its beginning."""
        before, done_before = self.synthesizer.snapshot(), self.progress.done[kind]
        try:
            yield
        except StopRequested:
            self.synthesizer.restore(before)
            self.progress.done[kind] = done_before
            raise

    def _train_student(self) -> None:
        steps = self.config.student_steps
        interval = math.ceil(steps / MEASUREMENTS_AN_EPOCH)
        while self.position.student_step < steps:
            self.losses.append(self.trainer.step(self.bank))
            self.position.student_step += 1
            self.progress.advance(Step.STUDENT)
            if len(self.losses) == interval or self.position.student_step == steps:
                mean = torch.stack(self.losses).mean().item()
                self.losses.clear()
                self.report({"student_loss": mean, "student_lr": self.trainer.learning_rate})
                self._saver.save_if_due()
            self._tell_progress()

    def _after_generator_step(self, kind: Step) -> None:
        self.progress.advance(kind)
        self._tell_progress()

    def _tell_progress(self) -> None:
        self.emit(
            ProgressEvent(
                phase=self.phase,
                epoch=self.position.epoch + 1,
                epochs=self.config.warmup_epochs + self.config.epochs,
                fraction=self.progress.fraction,
                eta_seconds=self.progress.eta_seconds,
            )
        )
        if self._should_stop():
            raise StopRequested

    def report(self, values: dict[str, float]) -> None:
        """Emit numbers by name, and refuse to go on with what is none."""
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise self.diverged(", ".join(broken))
        event = MetricsEvent(epoch=self.position.epoch + 1, step=self.progress.steps_done, values=values)
        self.reported.append(event)
        self.emit(event)

    def _announce_phase(self) -> None:
        if self.phase != self._announced:
            self.emit(PhaseEvent(phase=self.phase))
        self._announced = self.phase

    def _generator_is_due(self) -> bool:
        """Whether a new generator begins with this round: the first of every so many epochs, or of all."""
        life, position = self.config.generator_reset_every, self.position
        return position.round == 0 and (position.epoch % life == 0 if life else position.epoch == 0)


def _numbers(made: Round) -> dict[str, float]:
    values = {name: term.item() for name, term in made.terms.items()}
    converged_after = made.converged_after.item()
    return values | ({"convergence_steps": converged_after} if math.isfinite(converged_after) else {})
