"""What a run changed of its configuration to get through: smaller steps, smaller batches."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeVar

from nayer_core.contract.config import MethodConfig

Config = TypeVar("Config", bound=MethodConfig)

MOST_ROLLBACKS = 3
MOST_HALVINGS = 4  # of each batch: a sixteenth is left
SMALLEST_BATCH = 2  # BatchNorm needs two images


@dataclass(frozen=True)
class Adaptation:
    """How far a run has departed from its configuration; part of its checkpoints.

    Args:
        rollbacks: how often it diverged and went back; each halves all learning rates.
        returned_to: steps that were done where the last rollback led to; None before the first.
        halvings: how often each batch was halved, by its field of the configuration.
        history: what happened, in words, oldest first.
    """

    rollbacks: int = 0
    returned_to: int | None = None
    halvings: Mapping[str, int] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Read what `facts` gave."""
        return cls(**{**facts, "history": tuple(facts["history"])})

    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "history": list(self.history)}

    def summary(self, config: MethodConfig) -> dict[str, Any]:
        """What a model card says: the numbers in force at the end, where `config` was requested."""
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
        """Give the configuration in force where `config` was requested.

        Learning rates stay as they are when a batch is halved: the run keeps its number of updates
        and their size, and pays with noisier gradients.
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

        Not to the state that the last rollback led to: the run has just diverged from there, with smaller
        steps already, and has to go further back. Nor to a state that came before a later rollback and
        after the state that this one led to.

        Args:
            earlier: the adaptation of the saved state.
            steps: how many steps were done in it.
        """
        if self.returned_to is None:
            return True
        return steps < self.returned_to or (earlier.rollbacks == self.rollbacks and steps > self.returned_to)
