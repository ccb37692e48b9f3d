"""From the child's events to the job's log: in order, once each, however long the database is away."""

import logging
import time
from collections.abc import Iterable

from jobs.errors import LeaseLost, ServiceUnavailable
from jobs.service.for_workers import WorkerJobs
from jobs.values import Claim
from nayer_core.contract.events import CheckpointEvent, Event, FailedEvent, FinishedEvent, StoppedEvent
from worker.claims.lease import Lease

logger = logging.getLogger(__name__)

BATCH = 500  # events in one transaction
_RETRY_SECONDS = 1.0
# A checkpoint is told once it is safe in the store, the last line by the job's status.
_TOLD_OTHERWISE = (CheckpointEvent, FinishedEvent, FailedEvent, StoppedEvent)


class Recorder:
    """Writes a claim's events under its fence.

    Lines are counted over all children of the claim, so that (job, fence, line) names one event
    and a batch that was written although its answer got lost is not written twice.
    """

    def __init__(self, service: WorkerJobs, claim: Claim, lease: Lease):
        self._service = service
        self._claim = claim
        self._lease = lease
        self._line = 0
        self._waiting: list[tuple[int, Event]] = []
        self._retry_at = 0.0

    @property
    def room(self) -> int:
        """How many more events one transaction takes; what does not fit waits with the child."""
        return BATCH - len(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether everything that was added is in the database."""
        return not self._waiting

    def add(self, events: Iterable[Event]) -> None:
        """Put events in line to be written."""
        for event in events:
            self._line += 1
            if not isinstance(event, _TOLD_OTHERWISE):
                self._waiting.append((self._line, event))

    def flush(self) -> None:
        """Write what waits, unless the database is away or the lease in doubt; never waits for them.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        if not self._waiting or time.monotonic() < self._retry_at or not self._lease.is_certain():
            return
        try:
            self._service.record(self._claim, self._waiting)
        except ServiceUnavailable as error:
            logger.warning("%d events wait: %s", len(self._waiting), error.message)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        except LeaseLost:
            self._lease.lose()
            raise
        else:
            self._waiting = []
