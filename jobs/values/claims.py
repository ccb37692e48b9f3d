"""A worker's right to a job, and what it hears from the client."""

from dataclasses import dataclass

from jobs.states import QueueName
from jobs.values.jobs import Job


@dataclass(frozen=True)
class Claim:
    """The right of one worker to one job, valid as long as no other claim has a higher fence."""

    job: Job
    fence: int
    queue: QueueName


@dataclass(frozen=True)
class Control:
    """The answer to a heartbeat.

    Args:
        lost: the claim is no longer held: kill the child and write nothing more.
        cancel_requested: the client wants the job to end.
        pause_requested: the client wants the job to pause, with its state kept.
        remaining_seconds: what is left of `max_runtime_seconds`, not above zero when it is used up;
            None without a limit.
    """

    lost: bool
    cancel_requested: bool
    pause_requested: bool
    remaining_seconds: float | None
