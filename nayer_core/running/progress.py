"""How far a run is and how long it will take, from what its steps have cost so far."""

import time
from collections.abc import Callable
from enum import Enum

from nayer_core.contract.config import DistillConfig


class Step(Enum):
    """The kinds of step, with the cost of one image relative to a warm-up generator step's.

    The ratios stand in until a kind has been measured.
    """

    WARMUP = 1.0
    ADVERSARIAL = 1.25
    STUDENT = 0.6


class Progress:
    """Counts steps, times them, and tells what is left.

    Args:
        config: says how many steps of each kind a run has.
        clock: seconds, monotonic.
    """

    def __init__(self, config: DistillConfig, clock: Callable[[], float] = time.monotonic):
        warmup_rounds = config.warmup_epochs * config.warmup_rounds_per_epoch
        adversarial_rounds = config.epochs * config.rounds_per_epoch
        self._total = {
            Step.WARMUP: warmup_rounds * config.generator_steps,
            Step.ADVERSARIAL: adversarial_rounds * config.generator_steps,
            Step.STUDENT: config.epochs * config.student_steps,
        }
        self._images = {
            Step.WARMUP: config.synthesis_batch_size,
            Step.ADVERSARIAL: config.synthesis_batch_size,
            Step.STUDENT: config.student_batch_size,
        }
        self.done = dict.fromkeys(Step, 0)
        self._seconds = dict.fromkeys(Step, 0.0)
        self._timed = dict.fromkeys(Step, 0)
        self._clock = clock
        self._last = clock()
        self._highest = 0.0

    def advance(self, kind: Step) -> None:
        """Count one finished step; the time since the last one was its."""
        now = self._clock()
        self.done[kind] += 1
        self._timed[kind] += 1
        self._seconds[kind] += now - self._last
        self._last = now

    def skip(self, done: dict[Step, int]) -> None:
        """Count steps that an earlier process took."""
        self.done = dict(done)

    def pause(self) -> None:
        """Leave the time since the last step out: it went into something else."""
        self._last = self._clock()

    @property
    def steps_done(self) -> int:
        """Generator and student steps together."""
        return sum(self.done.values())

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the cost measured so far; None before the first step."""
        left = self._work({kind: self._total[kind] - self.done[kind] for kind in Step})
        return None if not any(self._timed.values()) else left

    @property
    def fraction(self) -> float:
        """Share of the whole work that is done, in [0, 1]; never falls."""
        whole = self._work(self._total)
        done = self._work(self.done)
        self._highest = max(self._highest, min(1.0, done / whole) if whole else 0.0)
        return self._highest

    def _work(self, steps: dict[Step, int]) -> float:
        """Seconds that these steps take, or a relative measure before any was timed."""
        return sum(count * self._cost(kind) for kind, count in steps.items())

    def _cost(self, kind: Step) -> float:
        if self._timed[kind]:
            return self._seconds[kind] / self._timed[kind]
        assumed = sum(self._timed[other] * self._images[other] * other.value for other in Step)
        unit = sum(self._seconds.values()) / assumed if assumed else 1.0
        return unit * self._images[kind] * kind.value
