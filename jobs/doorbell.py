"""Messages to workers, sent after a commit. A message only wakes a worker: the row is the job."""

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from celery import Celery

from jobs.states import QueueName

TASK_NAMES: Mapping[QueueName, str] = MappingProxyType(
    {"inspect": "worker.inspect", "distill": "worker.distill"}
)

# One connection attempt and one answer: together the two seconds a ring may take.
CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 1.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Doorbell:
    """Sends small messages to queues; a lost message delays a job by seconds, because upkeep rings again.

    Args:
        redis_url: the broker, `redis://host:port/0`.
    """

    def __init__(self, redis_url: str):
        self._app = Celery("nayer-doorbell", broker=redis_url, set_as_current=False)
        self._app.conf.update(
            task_serializer="json",
            task_ignore_result=True,
            broker_connection_timeout=CONNECT_SECONDS,
            broker_transport_options={
                "socket_connect_timeout": CONNECT_SECONDS,
                "socket_timeout": ANSWER_SECONDS,
                "retry_on_timeout": False,
                # Otherwise kombu would retry without end, in the middle of a request.
                "max_retries": 0,
            },
        )

    def ring(self, queue: QueueName, job_id: str) -> bool:
        """Wake the workers of `queue`: send task `worker.<queue>` with the argument `job_id`.

        Never raises and blocks no longer than about two seconds.

        Returns:
            Whether the broker took the message.
        """
        try:
            self._app.send_task(TASK_NAMES[queue], kwargs={"job_id": job_id}, queue=queue, retry=False)
        except Exception as error:
            # No failure may reach the caller: the row is committed, and upkeep rings again.
            logger.warning(
                "the doorbell of %s did not ring for job %s: %s", queue, job_id, type(error).__name__
            )
            return False
        return True

    def pending(self, queue: QueueName) -> int | None:
        """Count the messages that no worker has taken yet; None when the broker does not answer."""
        return self._ask(lambda redis: int(redis.llen(queue)))

    def check(self) -> float | None:
        """Measure one round trip to the broker in seconds; None when it does not answer."""
        began = time.perf_counter()
        is_there = self._ask(lambda redis: bool(redis.ping()))
        return time.perf_counter() - began if is_there else None

    def close(self) -> None:
        """Close the connections to the broker."""
        self._app.close()

    def _ask(self, question: Callable[[Any], T]) -> T | None:
        try:
            with self._app.pool.acquire(block=True, timeout=CONNECT_SECONDS) as connection:
                return question(connection.default_channel.client)
        except Exception as error:
            logger.warning("the broker does not answer: %s", type(error).__name__)
            return None
