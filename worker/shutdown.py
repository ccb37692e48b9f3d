"""A worker that is told to stop does stop, though its broker swallows every goodbye.

Celery takes leave of its broker in several steps, each of which waits for an answer. Behind a network
that drops packets these waits add up to minutes. Nothing depends on them: the row is the job, and a
broker forgets who does not come back. So once all jobs are put away the goodbyes get a moment, and then
the process ends by itself.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from worker.claims.supervisor import Supervisor

logger = logging.getLogger(__name__)

GOODBYE_SECONDS = 5.0
# A job that is not put away in its time waits for a server that is away, too; its lease runs out.
OVERTIME_SECONDS = 3.0
_TICK_SECONDS = 0.2


def see_off(supervisor: Supervisor, leave: Callable[[int], object] = os._exit) -> threading.Thread:
    """Watch over a worker's end from now on, in a thread of its own.

    It is started before anybody asks the worker to stop: to start a thread in the handler of a signal
    could wait for a lock that the interrupted code holds.

    Args:
        supervisor: of this process.
        leave: ends the process at once, with an exit code: 0 where no job was in hand.
    """
    thread = threading.Thread(target=_watch, args=(supervisor, leave), name="farewell", daemon=True)
    thread.start()
    return thread


def _watch(supervisor: Supervisor, leave: Callable[[int], object]) -> None:
    drain = supervisor.drain
    while not drain.is_requested:
        time.sleep(_TICK_SECONDS)
    while supervisor.is_busy and drain.remaining_seconds() > -OVERTIME_SECONDS:
        time.sleep(_TICK_SECONDS)
    time.sleep(GOODBYE_SECONDS)
    busy = supervisor.is_busy
    logger.warning("leaving without a goodbye: the broker does not answer", extra={"job_in_hand": busy})
    with contextlib.suppress(Exception):  # the way out must not depend on anything
        supervisor.close()
    leave(int(busy))
