"""Ring the doorbell after commit. The message says "look" and nothing more: the row is the job."""

import logging

from celery import Celery

from jobs.states import QueueName

TASK_NAMES: dict[QueueName, str] = {"inspect": "worker.inspect", "distill": "worker.distill"}

logger = logging.getLogger(__name__)


class Doorbell:
    """Sends one small message to a queue; losing it costs seconds, for upkeep rings again.

    Args:
        redis_url: the broker, `redis://host:port/0`.
    """

    def __init__(self, redis_url: str):
        self._app = Celery("nayer-doorbell", broker=redis_url, set_as_current=False)

    def ring(self, queue: QueueName, job_id: str) -> bool:
        """Tell the workers of `queue` to look: task `worker.<queue>` with the argument `job_id`.

        Never raises and blocks no longer than about two seconds.

        Returns:
            Whether the broker took the message.
        """
        raise NotImplementedError

    def pending(self, queue: QueueName) -> int | None:
        """Count the messages that no worker has taken yet; None when the broker does not answer."""
        raise NotImplementedError

    def check(self) -> float | None:
        """Measure one round trip to the broker in seconds; None when it does not answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections to the broker."""
        self._app.close()
