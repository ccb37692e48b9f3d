"""Writes the child's events into the job's log: in order, once each, even after a long outage."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from jobs.errors import ServiceUnavailable
from nayer_core.contract.events import CheckpointEvent, Event, FailedEvent, FinishedEvent, StoppedEvent
from worker.claims.lease import Lease

logger = logging.getLogger(__name__)

BATCH = 500  # events in one transaction
_RETRY_SECONDS = 1.0
# A checkpoint is logged once it is safe in the store; the last line is logged by the job's status.
_LOGGED_ELSEWHERE = (CheckpointEvent, FinishedEvent, FailedEvent, StoppedEvent)


class EventWriter:
    """Writes a claim's events under its fence.

    Lines are counted over all children of the claim, so that (job, fence, line) names one event, and
    a batch that is written again because its answer was lost has no second effect.

    Args:
        record: writes (line, event) pairs in one transaction.
        lease: while it is in doubt nothing is written.
    """

    def __init__(self, record: Callable[[Sequence[tuple[int, Event]]], None], lease: Lease):
        self._record = record
        self._lease = lease
        self._line = 0
        self._queue: list[tuple[int, Event]] = []
        self._retry_at = 0.0

    @property
    def room(self) -> int:
        """How many more events one transaction takes; the others wait with the child."""
        return BATCH - len(self._queue)

    @property
    def is_empty(self) -> bool:
        """Whether everything that was added is in the database."""
        return not self._queue

    def add(self, events: Iterable[Event]) -> None:
        """Put events into the queue of those to be written."""
        for event in events:
            self._line += 1
            if not isinstance(event, _LOGGED_ELSEWHERE):
                self._queue.append((self._line, event))

    def flush(self) -> None:
        """Write the queue, unless the database does not answer or the lease is in doubt; never waits.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        if not self._queue or time.monotonic() < self._retry_at or not self._lease.is_certain():
            return
        try:
            self._record(self._queue)
        except ServiceUnavailable as error:
            logger.warning("%d events wait: %s", len(self._queue), error.message)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        else:
            self._queue = []
