"""What a run changed of what it was asked, to get through: smaller steps, smaller batches."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from nayer_core.contract.config import DistillConfig

Part = Literal["synthesis", "student"]  # whose batches

MOST_ROLLBACKS = 3
MOST_HALVINGS = 4  # of either batch: a sixteenth is left
SMALLEST_BATCH = 2  # BatchNorm needs two images


@dataclass(frozen=True)
class Adaptation:
    """How far a run has departed from its configuration; part of its checkpoints.

    Args:
        rollbacks: how often it diverged and went back; each halves both learning rates.
        returned_to: steps that were done where the last rollback led to; None before the first.
        synthesis_halvings: how often `synthesis_batch_size` was halved.
        student_halvings: how often `student_batch_size` was halved.
        history: what happened, in words, oldest first.
    """

    rollbacks: int = 0
    returned_to: int | None = None
    synthesis_halvings: int = 0
    student_halvings: int = 0
    history: tuple[str, ...] = ()

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Read what `facts` gave."""
        return cls(**{**facts, "history": tuple(facts["history"])})

    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "history": list(self.history)}

    def told(self, config: DistillConfig) -> dict[str, Any]:
        """What a model card says: the numbers in force at the end where `config` was asked for."""
        in_force = self.applied_to(config)
        return {
            "rollbacks": self.rollbacks,
            "lr_scale": self.lr_scale,
            "synthesis_batch_size": in_force.synthesis_batch_size,
            "student_batch_size": in_force.student_batch_size,
            "history": list(self.history),
        }

    @property
    def lr_scale(self) -> float:
        """What both learning rates are multiplied with."""
        return 0.5**self.rollbacks

    def applied_to(self, config: DistillConfig) -> DistillConfig:
        """Give the configuration in force where `config` was asked for.

        Learning rates stay as they are when a batch is halved: the run keeps its number of updates
        and their size, and pays with noisier gradients.
        """
        return config.model_copy(
            update={
                "student_lr": config.student_lr * self.lr_scale,
                "student_lr_min": config.student_lr_min * self.lr_scale,
                "generator_lr": config.generator_lr * self.lr_scale,
                "synthesis_batch_size": _halved(config.synthesis_batch_size, self.synthesis_halvings),
                "student_batch_size": _halved(config.student_batch_size, self.student_halvings),
            }
        )

    def with_smaller_steps(self, returned_to: int, told: str) -> "Adaptation":
        """Count a rollback."""
        return replace(
            self, rollbacks=self.rollbacks + 1, returned_to=returned_to, history=(*self.history, told)
        )

    def halvings(self, part: Part) -> int:
        """How often the batches of a part were halved."""
        return self.synthesis_halvings if part == "synthesis" else self.student_halvings

    def with_smaller_batches(self, part: Part, told: str) -> "Adaptation":
        """Count a halving of the batches of a part."""
        history = (*self.history, told)
        if part == "synthesis":
            return replace(self, synthesis_halvings=self.synthesis_halvings + 1, history=history)
        return replace(self, student_halvings=self.student_halvings + 1, history=history)

    def should_return_to(self, earlier: "Adaptation", steps: int) -> bool:
        """Whether a saved state is one that a run which diverged now should go back to.

        The state that the last rollback led to is none: the run has just diverged from there, with
        steps already smaller, and looks further back. Neither are states of a way it has left.

        Args:
            earlier: what the saved state says of its own run.
            steps: generator and student steps done in it.
        """
        if self.returned_to is None:
            return True
        return steps < self.returned_to or (earlier.rollbacks == self.rollbacks and steps > self.returned_to)


def _halved(size: int, times: int) -> int:
    return max(SMALLEST_BATCH, size >> times)
