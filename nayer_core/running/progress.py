"""Progress of a run and its remaining time, from the measured cost of its steps."""

import time
from collections.abc import Callable, Mapping

from nayer_core.running.method import StepPlan


class RunProgress:
    """Counts steps, times them, and predicts the rest.

    Args:
        steps: `Plan.steps` of the run.
        clock: seconds, monotonic.

    Attributes:
        done: finished steps by kind.
    """

    def __init__(self, steps: Mapping[str, StepPlan], clock: Callable[[], float] = time.monotonic):
        self._steps = steps
        self.done = dict.fromkeys(steps, 0)
        self._seconds = dict.fromkeys(steps, 0.0)
        self._timed = dict.fromkeys(steps, 0)
        self._clock = clock
        self._last = clock()
        self._highest = 0.0

    def advance(self, kind: str) -> None:
        """Count a finished step; its time is the time since the last one."""
        now = self._clock()
        self.done[kind] += 1
        self._timed[kind] += 1
        self._seconds[kind] += now - self._last
        self._last = now

    def skip(self, done: Mapping[str, int]) -> None:
        """Set the counts of finished steps: another process did them, or some were undone."""
        self.done = {kind: done.get(kind, 0) for kind in self._steps}

    def pause(self) -> None:
        """Ignore the time since the last step: it was spent on something else."""
        self._last = self._clock()

    @property
    def steps_done(self) -> int:
        """Steps of all kinds together."""
        return sum(self.done.values())

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the cost measured so far; None before the first step."""
        if not any(self._timed.values()):
            return None
        return self._work({kind: step.count - self.done[kind] for kind, step in self._steps.items()})

    @property
    def fraction(self) -> float:
        """Share of the whole work that is done, in [0, 1]; it never falls."""
        whole = self._work({kind: step.count for kind, step in self._steps.items()})
        done = self._work(self.done)
        self._highest = max(self._highest, min(1.0, done / whole) if whole else 0.0)
        return self._highest

    def _work(self, counts: Mapping[str, int]) -> float:
        """Seconds for these steps, or a relative cost before any step was timed."""
        return sum(count * self._cost(kind) for kind, count in counts.items())

    def _cost(self, kind: str) -> float:
        if self._timed[kind]:
            return self._seconds[kind] / self._timed[kind]
        expected = sum(self._timed[other] * self._relative_cost(other) for other in self._steps)
        unit = sum(self._seconds.values()) / expected if expected else 1.0
        return unit * self._relative_cost(kind)

    def _relative_cost(self, kind: str) -> float:
        return self._steps[kind].images * self._steps[kind].relative_cost
