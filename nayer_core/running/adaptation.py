"""How a run changed its configuration to be able to continue: smaller steps, smaller batches."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeVar

from nayer_core.contract.config import MethodConfig

Config = TypeVar("Config", bound=MethodConfig)

MOST_ROLLBACKS = 3
MOST_HALVINGS = 4  # of each batch, down to a sixteenth
SMALLEST_BATCH = 2  # BatchNorm needs two images


@dataclass(frozen=True)
class Adaptation:
    """How far a run has deviated from its configuration; part of its checkpoints.

    Args:
        rollbacks: how often it diverged and went back; each halves all learning rates.
        returned_to: number of steps of the state that the last rollback restored; None before the first.
        halvings: how often each batch was halved, by its field of the configuration.
        history: a message for each change, oldest first.
    """

    rollbacks: int = 0
    returned_to: int | None = None
    halvings: Mapping[str, int] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Build one from its `facts`."""
        return cls(**{**facts, "history": tuple(facts["history"])})

    def facts(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**asdict(self), "history": list(self.history)}

    def summary(self, config: MethodConfig) -> dict[str, Any]:
        """Return the part of a model card: the values in force at the end of a run with `config`."""
        in_force = self.applied_to(config)
        return {
            "rollbacks": self.rollbacks,
            "lr_scale": self.lr_scale,
            **{batch: getattr(in_force, batch) for batch in config.BATCH_SIZES},
            "history": list(self.history),
        }

    @property
    def lr_scale(self) -> float:
        """The factor of all learning rates."""
        return 0.5**self.rollbacks

    def applied_to(self, config: Config) -> Config:
        """Return the configuration in force for a run that requested `config`.

        Learning rates do not change when a batch is halved: the run keeps the number and the size of its
        updates, and its gradients become noisier.
        """
        rates = {rate: getattr(config, rate) * self.lr_scale for rate in config.LEARNING_RATES}
        batches = {
            batch: max(SMALLEST_BATCH, getattr(config, batch) >> self.halvings.get(batch, 0))
            for batch in config.BATCH_SIZES
        }
        return config.model_copy(update={**rates, **batches})

    def with_smaller_steps(self, returned_to: int, message: str) -> "Adaptation":
        """Count a rollback."""
        return replace(
            self, rollbacks=self.rollbacks + 1, returned_to=returned_to, history=(*self.history, message)
        )

    def with_smaller_batches(self, batch: str, message: str) -> "Adaptation":
        """Count a halving of a batch."""
        halvings = {**self.halvings, batch: self.halvings.get(batch, 0) + 1}
        return replace(self, halvings=halvings, history=(*self.history, message))

    def should_return_to(self, earlier: "Adaptation", steps: int) -> bool:
        """Whether a run that diverged now should go back to a saved state.

        Not to the state that the last rollback restored: the run has just diverged from there, although its
        steps were smaller already, and has to go further back. Nor to a later state that was saved before
        that rollback.

        Args:
            earlier: the adaptation of the saved state.
            steps: number of steps of the saved state.
        """
        if self.returned_to is None:
            return True
        return steps < self.returned_to or (earlier.rollbacks == self.rollbacks and steps > self.returned_to)
