"""Ends a worker process after a request to shut down, even if its broker does not answer.

Celery closes its connections to the broker in several steps, each of which waits for an answer. Behind a
network that drops packets these waits add up to minutes. Nothing depends on them: the row is the job, and
a broker forgets a client that does not return. So once all jobs are put away, Celery gets a few seconds to
close, and then the process exits.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from worker.claims.supervisor import Supervisor

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0  # for Celery, once no job is in hand
# A job that is not put away in time waits for another server that does not answer; its lease runs out.
OVERTIME_SECONDS = 3.0
_TICK_SECONDS = 0.2


def exit_when_idle(supervisor: Supervisor, leave: Callable[[int], object] = os._exit) -> threading.Thread:
    """Start a thread that ends this process once a shutdown was requested and no job is in hand.

    It is started before any request: the handler of a signal must not start a thread, because that could
    wait for a lock that the interrupted code holds.

    Args:
        supervisor: of this process.
        leave: ends the process at once, with an exit code: 0 where no job was in hand.
    """
    thread = threading.Thread(target=_watch, args=(supervisor, leave), name="shutdown", daemon=True)
    thread.start()
    return thread


def _watch(supervisor: Supervisor, leave: Callable[[int], object]) -> None:
    drain = supervisor.drain
    while not drain.is_requested:
        time.sleep(_TICK_SECONDS)
    while supervisor.is_busy and drain.remaining_seconds() > -OVERTIME_SECONDS:
        time.sleep(_TICK_SECONDS)
    time.sleep(CLOSE_SECONDS)
    busy = supervisor.is_busy
    logger.warning("exiting although the broker does not answer", extra={"job_in_hand": busy})
    with contextlib.suppress(Exception):  # the exit must not depend on anything
        supervisor.close()
    leave(int(busy))
