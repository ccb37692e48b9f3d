"""Follow a job to its end through whatever happens to the connection."""

import contextlib
import time
from collections.abc import Callable, Iterator

from cli.client import Client, JobEvent, RemoteJob
from cli.errors import ApiError, ServiceUnreachableError

PATIENCE_SECONDS = 300.0  # with no answer at all; the service may be restarting
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
SILENT_STREAMS = 3  # after so many streams without an event, something between us holds them back
POLL_SECONDS = 2.0

OnEvent = Callable[[JobEvent], None]
OnTrouble = Callable[[str], None]


def follow(client: Client, job_id: str, on_event: OnEvent, on_trouble: OnTrouble) -> RemoteJob:
    """Hand on every event of the job, in order and once, and return the finished job.

    The live stream is resumed after the last event seen; where streams stay silent (a proxy
    that buffers them), the log is polled instead.

    Args:
        client: the service.
        job_id: which job.
        on_event: called with each event.
        on_trouble: called with one sentence each time the connection is lost.

    Raises:
        ApiError: the job is not known.
        ServiceUnreachableError: nothing answered for `PATIENCE_SECONDS`.
    """
    seen, silent, failures = 0, 0, 0
    heard_at = time.monotonic()
    while True:
        before = seen
        try:
            for event in _batch(client, job_id, seen, polling=silent >= SILENT_STREAMS):
                seen, heard_at = event.seq, time.monotonic()
                on_event(event)
            job = client.job(job_id)
            if job.is_terminal:
                _hand_on_the_rest(client, job_id, seen, on_event)
                return job
            heard_at, failures = time.monotonic(), 0
            silent = 0 if seen > before and silent < SILENT_STREAMS else silent + 1
        except (ServiceUnreachableError, ApiError) as error:
            if _is_final(error) or time.monotonic() - heard_at > PATIENCE_SECONDS:
                raise
            failures += 1
            on_trouble(f"{error.message} Trying again.")
        time.sleep(_pause_seconds(silent, failures))


def _batch(client: Client, job_id: str, after: int, *, polling: bool) -> Iterator[JobEvent]:
    # A stream that breaks off ends here; the question after it tells whether the service is away.
    with contextlib.suppress(ServiceUnreachableError):
        yield from client.log(job_id, after) if polling else client.stream(job_id, after)


def _hand_on_the_rest(client: Client, job_id: str, seen: int, on_event: OnEvent) -> None:
    while rest := client.log(job_id, seen):
        for event in rest:
            on_event(event)
        seen = rest[-1].seq


def _is_final(error: ServiceUnreachableError | ApiError) -> bool:
    return isinstance(error, ApiError) and error.status < 500 and error.status not in (408, 429)


def _pause_seconds(silent: int, failures: int) -> float:
    if failures:
        return min(SHORTEST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
    return POLL_SECONDS if silent >= SILENT_STREAMS else 0.0
