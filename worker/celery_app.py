"""The Celery application. A message only wakes a worker; the job is the row.

    celery -A worker.celery_app worker -Q inspect -P threads -c 2
    celery -A worker.celery_app worker -Q distill -P threads -c 1      (one for each GPU)

The pool is `threads` because a slot only waits for a child process: `solo` would answer no ping for
hours and loses the job at a soft shutdown (measured), and a `prefork` process may start no children
of its own through multiprocessing.
"""

from collections.abc import Callable
from typing import Any

from celery import Celery

from jobs.settings import Settings


def create_celery(load_settings: Callable[[], Settings]) -> Celery:
    """Assemble the application.

    Args:
        load_settings: called when the broker is first needed, so that importing needs no environment.
    """
    app = Celery("nayer", include=["worker.tasks"])
    app.add_defaults(lambda: _configuration(load_settings()))
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.redis_url,
        # Wait for a broker that does not answer, at the start or later; upkeep rings again.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # These time-outs detect a dead connection. The broker answers a worker that waits for a message
        # every second.
        "broker_transport_options": {"socket_connect_timeout": 3, "socket_timeout": 5},
        # The lease decides about running work, never the state of a connection.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Acknowledge early: with late acks on Redis, one long task ran three times (measured). The lease
        # and the reaper do the work of late acks.
        "task_acks_late": False,
        # A worker that is busy for hours must not hold a second message.
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        # The results are in our tables.
        "result_backend": None,
        "task_ignore_result": True,
        # Messages contain data only.
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_routes": {"worker.inspect": {"queue": "inspect"}, "worker.distill": {"queue": "distill"}},
    }


app = create_celery(Settings)
