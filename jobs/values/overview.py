"""Values about many jobs: statistics, and a page of the list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.states import JobStatus, QueueName
from jobs.values.jobs import JobSummary
from jobs.webhooks.deliveries import DeliveryStatus


@dataclass(frozen=True)
class JobStatistics:
    """How many jobs there are and how long they wait, at one moment.

    Args:
        counts: jobs in each status; zeros included.
        oldest_waiting_seconds: the age, since it was created, of the oldest job that waits in each queue;
            zero where none does.
        deliveries: messages to web hooks in each state; zeros included.
        expired_leases: jobs whose worker fell silent, and which the reaper has not taken yet.
    """

    counts: Mapping[JobStatus, int]
    oldest_waiting_seconds: Mapping[QueueName, float]
    deliveries: Mapping[DeliveryStatus, int]
    expired_leases: int


@dataclass(frozen=True)
class Page:
    """A page of the list of jobs, newest first; `next` is the `after` of the page that follows."""

    jobs: Sequence[JobSummary]
    has_more: bool
    next: str | None
