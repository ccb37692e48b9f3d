"""The events the program prints: one JSON object a line on stdout.

phase       a part of the work begins            never dropped
progress    where the run is                     at most two a second
metrics     numbers by name at a step            at most two a second
warning     something the client should know     never dropped
checkpoint  a state was saved, with its files    never dropped
bank        an earlier run's warm-up is used     never dropped
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


class _TimedEvent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    time: datetime = Field(default_factory=lambda: datetime.now(UTC))


class PhaseEvent(_TimedEvent):
    """A part of the work begins."""

    event: Literal["phase"] = "phase"
    phase: Phase


class ProgressEvent(_TimedEvent):
    """Progress of the run. `epoch` counts from 1 and includes warm-up."""

    event: Literal["progress"] = "progress"
    phase: Phase
    epoch: int
    epochs: int
    fraction: Annotated[float, Field(ge=0, le=1)]
    eta_seconds: float | None = None


class MetricsEvent(_TimedEvent):
    """Numbers by name; `step` counts generator and student updates together."""

    event: Literal["metrics"] = "metrics"
    epoch: int
    step: int
    values: dict[str, float]


class WarningEvent(_TimedEvent):
    """Something that the owner of the job should know and that does not stop it."""

    event: Literal["warning"] = "warning"
    code: str
    message: str


class CheckpointEvent(_TimedEvent):
    """A state that a later process can resume from; `files` are in the folder `checkpoint/`."""

    event: Literal["checkpoint"] = "checkpoint"
    epoch: int
    step: int
    files: dict[str, str]  # name -> sha256


class BankEvent(_TimedEvent):
    """The run uses the warm-up of an earlier run on this teacher.

    `made_by` is the name of that run, if it had one: in the service, its job.
    """

    event: Literal["bank"] = "bank"
    images: int
    made_by: str | None
    seed: int
    sha256: str  # of the bank's file


class FinishedEvent(_TimedEvent):
    """The command is done; `result` is its result."""

    event: Literal["finished"] = "finished"
    command: str
    result: dict[str, Any]


class FailedEvent(_TimedEvent):
    """The request cannot work (exit code 2)."""

    event: Literal["failed"] = "failed"
    code: ErrorCode
    message: str
    hint: str
    retryable: bool = False


class StoppedEvent(_TimedEvent):
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

# A command calls it to report; the program writes the event to stdout.
Emit = Callable[[Event], None]

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])

EXIT_DONE, EXIT_BUG, EXIT_REFUSED, EXIT_STOPPED = 0, 1, 2, 3


def parse_event(line: str | bytes) -> Event:
    """Read one line of the program's stdout.

    Raises:
        pydantic.ValidationError: the line is not an event.
    """
    return _EVENT.validate_json(line)
