"""How long an action is repeated while the database or the store does not answer."""

import logging
import time

from jobs.errors import ServiceUnavailable
from worker.claims.drain import Drain
from worker.claims.lease import Lease, StopReason
from worker.claims.outcomes import stop_error

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_LONGEST_OUTAGE_SECONDS = 900.0  # then the slot is given back, and the reaper takes the job


class Patience:
    """The pauses between the tries of one action, from now on.

    Args:
        lease: of the job that the action is for.
        drain: ends all waiting when its time is used up.
        ignore_stop: continue although the job must stop. Set it for the writes of the stop itself.
    """

    def __init__(self, lease: Lease, drain: Drain, *, ignore_stop: bool = False):
        self._lease = lease
        self._drain = drain
        self._ignore_stop = ignore_stop
        self._since = time.monotonic()

    def wait(self, cause: str) -> None:
        """Pause before the next try.

        Args:
            cause: why the last try did not succeed, for the log.

        Raises:
            LeaseLost: the job is no longer ours.
            Stopped: the job must stop.
            ServiceUnavailable: the outage is too long, or the worker's time to shut down is used up.
        """
        reason = self._lease.stop_reason()
        if reason is StopReason.LOST or (reason is not None and not self._ignore_stop):
            raise stop_error(reason)
        outage_seconds = time.monotonic() - self._since
        if outage_seconds > _LONGEST_OUTAGE_SECONDS or self._drain.remaining_seconds() <= 0:
            raise ServiceUnavailable("service", f"waiting was given up: {cause}")
        logger.warning("waiting: %s", cause)
        time.sleep(_RETRY_SECONDS)
