"""All that a run is between two steps, and how it is saved and taken up again."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import CheckpointEvent, Emit, MetricsEvent
from nayer_core.hardware.device_memory import is_out_of_memory
from nayer_core.methods.nayer.synthesis import Synthesizer
from nayer_core.methods.parts.memory_bank import MemoryBank
from nayer_core.methods.parts.student_training import StudentTrainer
from nayer_core.running.adaptation import Adaptation
from nayer_core.running.checkpoint import Checkpoint, CheckpointFolder
from nayer_core.running.progress import Progress, Step

# Of what a checkpoint holds; it rises when the same names come to mean something else, for a run must not
# go on from what it would misread.
FORMAT = 1


@dataclass
class Position:
    """Where a run is: all counts are of finished things."""

    epoch: int = 0
    round: int = 0
    student_step: int = 0
    rounds_done: int = 0


class RunState:
    """Networks, bank, place in the loops and history of a run: what its checkpoints hold.

    Args:
        config: the numbers of the method, as they were asked for.
        synthesizer: generator, noisy layer, statistics and the run's random numbers.
        trainer: the student and its optimiser.
        bank: the synthetic images.
    """

    def __init__(
        self, config: DistillConfig, synthesizer: Synthesizer, trainer: StudentTrainer, bank: MemoryBank
    ):
        self.config = config
        self.synthesizer = synthesizer
        self.trainer = trainer
        self.bank = bank
        self.adaptation = Adaptation()
        self.position = Position()
        self.progress = Progress(config)
        self.reported: list[MetricsEvent] = []  # by all processes that worked on the run
        self.warm_bank: dict[str, Any] | None = None  # what is told of the bank that was taken
        self.losses: list[Tensor] = []  # the student's, since they were last reported
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, in all processes that worked on it."""
        return time.monotonic() - self.began

    @property
    def distilled_student(self) -> nn.Module:
        """The student a client would get now; `trainer.student` is the one that is trained."""
        return self.trainer.distilled

    @property
    def config_in_force(self) -> DistillConfig:
        """What was asked for, with the batch sizes and learning rates the run has come to."""
        return self.adaptation.applied_to(self.config)

    def adopt(self, adaptation: Adaptation) -> None:
        """Go on with other batch sizes or learning rates than were asked for."""
        self.adaptation = adaptation
        self.synthesizer.adopt(self.config_in_force)
        self.trainer.adopt(self.config_in_force)

    def require_finite(self, tensors: Iterable[Tensor]) -> None:
        """Refuse to go on with, or to save, what is no number.

        Raises:
            TrainingError: `diverged`.
        """
        if not all_finite(tensors):
            raise self.diverged("A weight")

    def diverged(self, what: str) -> TrainingError:
        """Say that something has stopped being a finite number."""
        epochs = self.config.warmup_epochs + self.config.epochs
        return TrainingError(
            ErrorCode.DIVERGED,
            f"{what} is not a finite number in epoch {min(self.position.epoch + 1, epochs)}.",
            "Lower config.student_lr or config.generator_lr, or set config.precision to fp32.",
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything but the bank that a bit-exact resume needs, and the history: tensors and plain facts."""
        tensors = {f"synthesizer.{name}": value for name, value in self.synthesizer.snapshot().items()}
        tensors |= {f"trainer.{name}": value for name, value in self.trainer.state().items()}
        tensors |= {"run.losses": torch.stack(self.losses)} if self.losses else {}
        tensors |= {"run.dropout_rng": _dropout_rng(self.bank.images.device).get_state()}
        facts = {
            "format": FORMAT,
            "position": asdict(self.position),
            "steps_done": {kind.name: count for kind, count in self.progress.done.items()},
            "trainer": self.trainer.facts(),
            "config": self.config.model_dump(),
            "adaptation": self.adaptation.facts(),
            "reported": [event.model_dump(include={"epoch", "step", "values"}) for event in self.reported],
            "seconds": self.seconds,
            "warm_bank": self.warm_bank,
        }
        return tensors, facts

    def resume(self, checkpoints: CheckpointFolder) -> None:
        """Take up a run where its newest whole checkpoint left it.

        Raises:
            TrainingError: `checkpoint_invalid`, where none is whole or it is of another run or program.
        """
        try:
            self.restore(checkpoints.load(self.bank))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise TrainingError(
                ErrorCode.CHECKPOINT_INVALID,
                "The checkpoint was made with another configuration or version of the program.",
                "Resume with what the run was started with, or start it anew.",
            ) from error

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what was saved; the bank has been refilled already."""
        facts = checkpoint.facts
        if facts["format"] != FORMAT:
            raise ValueError("made with another version of the program")
        if facts["config"] != self.config.model_dump():
            raise ValueError("made with another configuration")
        parts: dict[str, dict[str, Tensor]] = {"synthesizer": {}, "trainer": {}, "run": {}}
        for name, tensor in checkpoint.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.adopt(Adaptation.from_facts(facts["adaptation"]))
        self.synthesizer.restore(parts["synthesizer"])
        self.trainer.restore(parts["trainer"], facts["trainer"])
        self.losses = list(parts["run"].get("losses", torch.empty(0)).to(self.bank.images.device))
        _dropout_rng(self.bank.images.device).set_state(parts["run"]["dropout_rng"])
        self.position = Position(**facts["position"])
        self.progress.skip({kind: facts["steps_done"][kind.name] for kind in Step})
        self.reported = [MetricsEvent(**row) for row in facts["reported"]]
        self.warm_bank = facts["warm_bank"]
        self.began = time.monotonic() - facts["seconds"]


class Saver:
    """Writes checkpoints of a run at intervals of time; without a folder it does nothing.

    Args:
        run: what is saved.
        folder: where to.
        seconds: between two checkpoints.
        emit: is told of each.
    """

    def __init__(self, run: RunState, folder: CheckpointFolder | None, seconds: float, emit: Emit):
        self.run = run
        self.folder = folder
        self.seconds = seconds
        self.emit = emit
        self.last = time.monotonic()

    def save_if_due(self) -> None:
        """Save where the last time is long enough ago; processes that share a run all do or none does."""
        if self.run.synthesizer.processes.any(time.monotonic() - self.last >= self.seconds):
            self.save()

    def save(self) -> None:
        """Save now.

        Raises:
            TrainingError: `diverged`, where the state is not finite; nothing is written then.
        """
        if self.folder is None:
            return
        tensors, facts = self.run.state()
        self.run.require_finite(tensors.values())  # what cannot be gone on from is no checkpoint
        files = self.folder.save(tensors, facts, self.run.bank)
        self.emit(
            CheckpointEvent(epoch=self.run.position.epoch + 1, step=self.run.progress.steps_done, files=files)
        )
        self.run.progress.pause()
        self.last = time.monotonic()


def _dropout_rng(device: torch.device) -> torch.Generator:
    """Give what layers draw from that cannot be told to draw from a run's own source."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator: torch.Generator = torch.cuda.default_generators[index]
        return generator
    return torch.default_generator


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds NaN or an infinity; waits for the device once."""
    finite = [torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()]
    by_device = torch.stack(finite) if finite else torch.ones(1)
    return bool(by_device.all())
