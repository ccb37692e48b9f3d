"""The Celery tasks, and the start and the shutdown of a worker process."""

import logging
from collections.abc import Sequence
from typing import Any

from celery import signals

from jobs.settings import Settings
from worker import logs
from worker.celery_app import app
from worker.claims.supervisor import CORE_PROGRAM, Supervisor
from worker.flows import FLOWS
from worker.shutdown import exit_when_idle

logger = logging.getLogger(__name__)


class Process:
    """The objects of the worker process, from its start to its end."""

    program: Sequence[str] = CORE_PROGRAM
    supervisor: Supervisor


@app.task(name="worker.inspect")
def inspect(job_id: str) -> None:
    """Look for jobs to validate; `job_id` is only the one that rang the doorbell."""
    logger.info("the doorbell of inspect rang for %s", job_id)
    Process.supervisor.run_jobs("inspect")


@app.task(name="worker.distill")
def distill(job_id: str) -> None:
    """Look for jobs to distil; `job_id` is only the one that rang the doorbell."""
    logger.info("the doorbell of distill rang for %s", job_id)
    Process.supervisor.run_jobs("distill")


@signals.setup_logging.connect
def _set_up_logging(loglevel: int | str = logging.INFO, **_: Any) -> None:
    logs.configure(loglevel)


@signals.worker_init.connect
def _on_init(**_: Any) -> None:
    Process.supervisor = Supervisor(Settings(), FLOWS, Process.program)
    exit_when_idle(Process.supervisor)


@signals.worker_ready.connect
def _on_ready(sender: Any, **_: Any) -> None:
    # The doorbell may have rung while no worker listened.
    for queue in sender.app.amqp.queues.consume_from:
        if f"worker.{queue}" in app.tasks:
            app.tasks[f"worker.{queue}"].apply_async(("start",), queue=queue, retry=False)


@signals.worker_shutting_down.connect
def _on_shutting_down(**_: Any) -> None:
    Process.supervisor.drain.request()  # in a signal handler: a flag is set and nothing else


@signals.worker_shutdown.connect
def _on_shutdown(**_: Any) -> None:
    Process.supervisor.close()
