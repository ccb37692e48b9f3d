"""One run of a method: it drives the steps, reports them, saves the state, stops and resumes."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import torch
from torch import nn

from nayer_core.contract.config import MethodConfig
from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import (
    CheckpointEvent,
    Emit,
    MetricsEvent,
    Phase,
    PhaseEvent,
    ProgressEvent,
)
from nayer_core.hardware.device_memory import is_out_of_memory
from nayer_core.hardware.machine import Machine
from nayer_core.running.adaptation import Adaptation
from nayer_core.running.checkpoint import CheckpointFolder, SavedState
from nayer_core.running.method import (
    EpochDone,
    Method,
    NotFinite,
    State,
    Step,
    require_finite,
    require_finite_values,
)
from nayer_core.running.progress import RunProgress

# Version of a checkpoint's content. It rises when a name gets another meaning: a run must not continue from
# a state that it would misread.
FORMAT = 2

_DROPOUT_RNG = "run.dropout_rng"


class Run:
    """A run of a method, with its progress and its history.

    Args:
        method: at its beginning.
        config: the configuration that was requested.
        machine: where the method computes.
        emit: receives the run's events.

    Attributes:
        reported: all metrics events so far, also those of earlier processes.
        warm_bank: facts about the warm bank that the run began with, or None.
    """

    def __init__(self, method: Method, config: MethodConfig, machine: Machine, emit: Emit):
        self.method = method
        self.config = config
        self.machine = machine
        self.emit = emit
        self.plan = method.plan(config)
        self.progress = RunProgress(self.plan.steps)
        self.adaptation = Adaptation()
        self.reported: list[MetricsEvent] = []
        self.warm_bank: dict[str, Any] | None = None
        self.began = time.monotonic()
        self._announced: Phase | None = None
        for warning in method.warnings():
            emit(warning)

    @property
    def seconds(self) -> float:
        """Duration of the run so far, including earlier processes that worked on it."""
        return time.monotonic() - self.began

    @property
    def student(self) -> nn.Module:
        """The network a client would get now."""
        return self.method.student

    @property
    def config_in_force(self) -> MethodConfig:
        """The requested configuration with the present batch sizes and learning rates."""
        return self.adaptation.applied_to(self.config)

    def go_on(
        self,
        *,
        checkpoints: CheckpointFolder | None = None,
        checkpoint_seconds: float = 60.0,
        after_epoch: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Run from the present state to the end, or until `should_stop` says so.

        `recovery.Recovery` does the same, and recovers from divergence and from a full device.

        Args:
            checkpoints: where the state is saved, at intervals and when stopped.
            checkpoint_seconds: time between two checkpoints.
            after_epoch: called after each epoch; its duration is not counted as a step's.
            should_stop: called after every step; all processes must get the same answer.

        Returns:
            True at the end; False if `should_stop` ended it, with the state saved.

        Raises:
            TrainingError: `diverged` if a loss or a weight is not a finite number.
        """
        saver = Saver(self, checkpoints, checkpoint_seconds)
        try:
            if self._drive(saver, after_epoch, should_stop):
                require_finite(self.method.state().tensors.values())
                return True
        except NotFinite as error:
            raise self._diverged(str(error)) from error
        saver.save()
        return False

    def _drive(
        self, saver: "Saver", after_epoch: Callable[[], None], should_stop: Callable[[], bool]
    ) -> bool:
        """Do the method's steps; False if they were stopped."""
        self._announce_phase()
        complete = dict(self.progress.done)  # steps when the state was last complete
        with closing(self.method.steps()) as steps:
            for step in steps:
                if isinstance(step, EpochDone):
                    after_epoch()
                    self.progress.pause()
                    self._announce_phase()
                    continue
                self._count(step)
                if step.whole:
                    complete = dict(self.progress.done)
                    saver.save_if_due()
                if should_stop():
                    break
            else:
                return True
        self.progress.skip(complete)  # the method has undone the later steps
        return False

    def _count(self, step: Step) -> None:
        self.progress.advance(step.kind)
        if step.values:
            self.report(step.values)
        self.emit(
            ProgressEvent(
                phase=self.plan.steps[step.kind].phase,
                epoch=self.method.epoch + 1,
                epochs=self.plan.epochs,
                fraction=self.progress.fraction,
                eta_seconds=self.progress.eta_seconds,
            )
        )

    def report(self, values: Mapping[str, float]) -> None:
        """Emit numbers by name.

        Raises:
            NotFinite: one of them is not a finite number.
        """
        require_finite_values(values)
        event = MetricsEvent(epoch=self.method.epoch + 1, step=self.progress.steps_done, values=dict(values))
        self.reported.append(event)
        self.emit(event)

    def adopt(self, adaptation: Adaptation) -> None:
        """Continue with batch sizes or learning rates other than the requested ones."""
        self.adaptation = adaptation
        self.method.adopt(self.config_in_force)
        self.machine.graphs.forget()  # shapes have changed

    def state(self) -> State:
        """Return the state that a bit-exact resume needs, apart from the bank, and the history."""
        state = self.method.state()
        tensors = {**state.tensors, _DROPOUT_RNG: _dropout_rng(self.machine.device).get_state()}
        facts = {
            "format": FORMAT,
            "method": state.facts,
            "steps_done": dict(self.progress.done),
            "config": self.config.model_dump(),
            "adaptation": self.adaptation.facts(),
            "reported": [event.model_dump(include={"epoch", "step", "values"}) for event in self.reported],
            "seconds": self.seconds,
            "warm_bank": self.warm_bank,
        }
        return State(tensors, facts)

    def resume(self, checkpoints: CheckpointFolder) -> None:
        """Resume a run from its newest valid checkpoint.

        Raises:
            TrainingError: `checkpoint_invalid` if none is valid, or if it is of another run or release.
        """
        try:
            checkpoint = checkpoints.load(self.method.bank)
            _require_this_release(checkpoint)
            self.restore(checkpoint)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise TrainingError(
                ErrorCode.CHECKPOINT_INVALID,
                "The checkpoint was made by a run with another configuration.",
                "Resume with the configuration that the run was started with, or start it again.",
            ) from error

    def restore(self, checkpoint: SavedState) -> None:
        """Return to a saved state; the bank has been restored already."""
        facts = checkpoint.facts
        if facts["config"] != self.config.model_dump():
            raise ValueError("made with another configuration")
        tensors = dict(checkpoint.tensors)
        dropout_rng = tensors.pop(_DROPOUT_RNG)
        self.adopt(Adaptation.from_facts(facts["adaptation"]))
        self.method.restore(State(tensors, facts["method"]))
        _dropout_rng(self.machine.device).set_state(dropout_rng)
        self.progress.skip(facts["steps_done"])
        self.reported = [MetricsEvent(**row) for row in facts["reported"]]
        self.warm_bank = facts["warm_bank"]
        self.began = time.monotonic() - facts["seconds"]

    def _announce_phase(self) -> None:
        phase = self.plan.steps[self.method.next_kind].phase
        if phase != self._announced and self.method.epoch < self.plan.epochs:
            self.emit(PhaseEvent(phase=phase))
            self._announced = phase

    def _diverged(self, what: str) -> TrainingError:
        rates = [f"config.{rate}" for rate in self.config.LEARNING_RATES]
        return TrainingError(
            ErrorCode.DIVERGED,
            f"{what} is not a finite number in epoch {min(self.method.epoch + 1, self.plan.epochs)}.",
            f"Lower the learning rates ({', '.join(rates)}), or set config.precision to fp32.",
        )


class Saver:
    """Writes checkpoints of a run at intervals; without a folder it does nothing.

    Args:
        run: what is saved.
        folder: where to.
        seconds: between two checkpoints.
    """

    def __init__(self, run: Run, folder: CheckpointFolder | None, seconds: float = 0.0):
        self.run = run
        self.folder = folder
        self.seconds = seconds
        self.last = time.monotonic()

    def save_if_due(self) -> None:
        """Save if the interval has passed; either all processes of a run save or none does."""
        is_due = time.monotonic() - self.last >= self.seconds
        if self.folder is not None and self.run.machine.peers.any(is_due):
            self.save()

    def save(self) -> None:
        """Save now.

        Raises:
            NotFinite: the state is not finite; nothing is written.
        """
        if self.folder is None:
            return
        state = self.run.state()
        require_finite(state.tensors.values())  # a run cannot continue from a state with NaN
        files = self.folder.save(state.tensors, state.facts, self.run.method.bank)
        self.run.emit(
            CheckpointEvent(epoch=self.run.method.epoch + 1, step=self.run.progress.steps_done, files=files)
        )
        self.run.progress.pause()
        self.last = time.monotonic()


def _require_this_release(checkpoint: SavedState) -> None:
    version = checkpoint.facts.get("format")
    if version != FORMAT:
        raise TrainingError(
            ErrorCode.CHECKPOINT_INVALID,
            f"The checkpoint was made by another release of the program (format {version}, not {FORMAT}).",
            "Resume with the release that made it, or start the run again without it.",
        )


def _dropout_rng(device: torch.device) -> torch.Generator:
    """Return the generator used by layers that accept no other, such as dropout."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator: torch.Generator = torch.cuda.default_generators[index]
        return generator
    return torch.default_generator
