"""The states of a job and the steps between them.

    validating ──▶ queued ──▶ running ──▶ succeeded | failed | cancelled
        │          │ ▲ ▲        │ │
        │          │ │ └────────┘ │ drain, lost worker
        │          ▼ │            │
        │         paused ◀────────┘ pause requested
        │            │
        └────────────┴──▶ succeeded (kind validate) | failed | cancelled, as every waiting job may

The database has the same table as a trigger (`migrations/versions`); a test compares the two.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

QueueName = Literal["inspect", "distill"]


class JobStatus(StrEnum):
    """Where a job is, in the words of the HTTP API."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; a terminal status never changes."""
        return self in TERMINAL

    @property
    def queue(self) -> QueueName | None:
        """The queue whose workers take a waiting job in this status, if any do."""
        return _QUEUE_OF.get(self)


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

# Jobs with a state that can be saved, or with no state yet.
PAUSABLE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        JobStatus.VALIDATING: frozenset({JobStatus.QUEUED}) | TERMINAL,
        JobStatus.QUEUED: frozenset(
            {JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}
        ),
        JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.PAUSED}) | TERMINAL,
        JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
        JobStatus.SUCCEEDED: frozenset(),
        JobStatus.FAILED: frozenset(),
        JobStatus.CANCELLED: frozenset(),
    }
)

_QUEUE_OF: Mapping[JobStatus, QueueName] = MappingProxyType(
    {JobStatus.VALIDATING: "inspect", JobStatus.QUEUED: "distill"}
)

# The status a waiting job has in each queue, and the one it has while a worker holds it.
WAITING_IN: Mapping[QueueName, JobStatus] = MappingProxyType(
    {queue: status for status, queue in _QUEUE_OF.items()}
)
HELD_IN: Mapping[QueueName, JobStatus] = MappingProxyType(
    {"inspect": JobStatus.VALIDATING, "distill": JobStatus.RUNNING}
)
