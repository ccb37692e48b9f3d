"""The records the program prints: one JSON object a line on stdout.

phase       a part of the work begins            never dropped
progress    where the run is                     at most two a second
metrics     numbers by name at a step            at most two a second
warning     something the client should know     never dropped
checkpoint  a state was saved, with its files    never dropped
bank        an earlier run's warm-up was taken   never dropped
finished | failed | stopped                      the last line: exit code 0, 2 or 3
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from nayer_core.contract.errors import ErrorCode


class Phase(StrEnum):
    """The parts of a job, in order."""

    INSPECT = "inspect"
    EMBED = "embed"
    WARMUP = "warmup"
    DISTILL = "distill"
    EVALUATE = "evaluate"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    time: datetime = Field(default_factory=lambda: datetime.now(UTC))


class PhaseEvent(_Record):
    """A part of the work begins."""

    event: Literal["phase"] = "phase"
    phase: Phase


class ProgressEvent(_Record):
    """Where the run is. `epoch` counts from 1 and warm-up is counted in."""

    event: Literal["progress"] = "progress"
    phase: Phase
    epoch: int
    epochs: int
    fraction: Annotated[float, Field(ge=0, le=1)]
    eta_seconds: float | None = None


class MetricsEvent(_Record):
    """Numbers by name; `step` counts generator and student updates together."""

    event: Literal["metrics"] = "metrics"
    epoch: int
    step: int
    values: dict[str, float]


class WarningEvent(_Record):
    """Something that does not stop the job and that its owner should know."""

    event: Literal["warning"] = "warning"
    code: str
    message: str


class CheckpointEvent(_Record):
    """A state that a later process can resume from; `files` lie in the folder `checkpoint/`."""

    event: Literal["checkpoint"] = "checkpoint"
    epoch: int
    step: int
    files: dict[str, str]  # name -> sha256


class BankEvent(_Record):
    """The warm-up of an earlier run on this teacher was taken in place of an own one.

    `made_by` is what that run was called, where it had a name: in the service, its job.
    """

    event: Literal["bank"] = "bank"
    images: int
    made_by: str | None
    seed: int
    sha256: str  # of the bank's file


class FinishedEvent(_Record):
    """The command did what it was asked; `result` is what it found."""

    event: Literal["finished"] = "finished"
    command: str
    result: dict[str, Any]


class FailedEvent(_Record):
    """The request cannot work (exit code 2)."""

    event: Literal["failed"] = "failed"
    code: ErrorCode
    message: str
    hint: str
    retryable: bool = False


class StoppedEvent(_Record):
    """Stopped on request with the state saved (exit code 3)."""

    event: Literal["stopped"] = "stopped"
    reason: str


Event = (
    PhaseEvent
    | ProgressEvent
    | MetricsEvent
    | WarningEvent
    | CheckpointEvent
    | BankEvent
    | FinishedEvent
    | FailedEvent
    | StoppedEvent
)

# What a command calls to report; the program writes it to stdout.
Emit = Callable[[Event], None]

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])

EXIT_DONE, EXIT_BUG, EXIT_REFUSED, EXIT_STOPPED = 0, 1, 2, 3


def parse_event(line: str | bytes) -> Event:
    """Read one line of the program's stdout.

    Raises:
        pydantic.ValidationError: the line is not an event.
    """
    return _EVENT.validate_json(line)
