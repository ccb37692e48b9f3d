"""A job's log and its series."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

EventType = Literal[
    "status", "phase", "progress", "warning", "metrics", "artifact", "error", "checkpoint", "bank"
]


@dataclass(frozen=True)
class JobEvent:
    """One entry of a job's ordered log; `seq` counts from 1 without gaps.

    `data` by `type`:
        status      {"status", "attempt"} and, in some events, "cancel_requested",
                    "pause_requested", "reason"
        phase       {"phase"}
        progress    {"phase", "epoch", "epochs", "fraction", "eta_seconds"}
        metrics     {"epoch", "step", "values"}
        warning     {"code", "message"}
        checkpoint  {"epoch", "step"} of a state that is safe in the store; with "resumed": true where
                    a worker continues from one
        bank        {"images", "made_by", "seed", "sha256"} of the warm-up that a run began with
        artifact    {"name", "bytes", "sha256", "media_type"}
        error       {"code", "message", "hint", "retryable"}
    """

    job_id: str
    seq: int
    type: EventType
    data: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class MetricPoint:
    """One value of a series; `step` counts generator and student updates together."""

    name: str
    step: int
    epoch: int
    value: float
    created_at: datetime
