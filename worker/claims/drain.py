"""The shutdown of a worker, as its jobs see it: a request, and the time that is left to put jobs away."""

import time

# Of the time that is left when a job is put away: the child's share, to save its state, and then the share
# of that checkpoint's way to the store. The rest is for giving the job back.
_CHILD_SHARE = 0.6
_CHECKPOINT_SHARE = 0.7


class Drain:
    """The request that a worker shut down, made once, by a signal, for all its jobs.

    Args:
        seconds: how long the jobs have, from the request on, to be put away.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._since: float | None = None

    def request(self) -> None:
        """Ask every job of this worker to stop; safe in a signal handler."""
        if self._since is None:
            self._since = time.monotonic()

    @property
    def is_requested(self) -> bool:
        """Whether the worker is shutting down."""
        return self._since is not None

    def remaining_seconds(self) -> float:
        """What is left of the time to put jobs away; all of it before the request."""
        since = self._since
        return self._seconds if since is None else self._seconds - (time.monotonic() - since)

    def child_seconds(self) -> float:
        """How long a child may take to save its state."""
        return self.remaining_seconds() * _CHILD_SHARE

    def checkpoint_seconds(self) -> float:
        """How long the last checkpoint may take to reach the store, once its child has ended."""
        return self.remaining_seconds() * _CHECKPOINT_SHARE
