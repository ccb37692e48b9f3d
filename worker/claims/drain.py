"""The shutdown of a worker: a request to its jobs, and the time that is left to put them away."""

import time

# Shares of the time that is left when a job is put away: first for the child, which saves its state, then
# for the checkpoint to reach the store. The rest is for the release of the job.
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
        """Request that every job of this worker stops; safe in a signal handler."""
        if self._since is None:
            self._since = time.monotonic()

    @property
    def is_requested(self) -> bool:
        """Whether the worker is shutting down."""
        return self._since is not None

    def remaining_seconds(self) -> float:
        """The time that is left to put jobs away; the whole time before the request."""
        since = self._since
        return self._seconds if since is None else self._seconds - (time.monotonic() - since)

    def child_seconds(self) -> float:
        """How long a child may take to save its state."""
        return self.remaining_seconds() * _CHILD_SHARE

    def checkpoint_seconds(self) -> float:
        """How long the last checkpoint may take to reach the store, once its child has ended."""
        return self.remaining_seconds() * _CHECKPOINT_SHARE
