"""Following a job to its end, over connections that break."""

import contextlib
import time
from collections.abc import Callable, Iterator

from nayer.client import Client, RemoteEvent, RemoteJob
from nayer.errors import ApiError, ServiceUnreachableError

PATIENCE_SECONDS = 300.0  # with no answer at all; the service may be restarting
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
SILENT_STREAMS = 3  # after so many streams without an event, a proxy on the way buffers them
POLL_SECONDS = 2.0

OnEvent = Callable[[RemoteEvent], None]
OnTrouble = Callable[[str], None]


def _ignore(_: object) -> None: ...


def follow(
    client: Client, job_id: str, on_event: OnEvent = _ignore, on_trouble: OnTrouble = _ignore
) -> RemoteJob:
    """Wait until a job has finished, and return it.

    A live stream that breaks is resumed behind the last event. Where streams bring no events (a proxy
    buffers them), the log is polled instead.

    Args:
        client: the service.
        job_id: the job.
        on_event: called with each event, in order and once.
        on_trouble: called with one sentence each time the connection is lost.

    Raises:
        ApiError: there is no such job.
        ServiceUnreachableError: nothing answered for `PATIENCE_SECONDS`.
    """
    last_seq, silent, failures = 0, 0, 0
    answered_at = time.monotonic()
    while True:
        before = last_seq
        try:
            for event in _batch(client, job_id, last_seq, polling=silent >= SILENT_STREAMS):
                last_seq, answered_at = event.seq, time.monotonic()
                on_event(event)
            job = client.job(job_id)
            if job.is_terminal:
                _report_the_rest(client, job_id, last_seq, on_event)
                return job
            answered_at, failures = time.monotonic(), 0
            silent = 0 if last_seq > before and silent < SILENT_STREAMS else silent + 1
        except (ServiceUnreachableError, ApiError) as error:
            if _is_final(error) or time.monotonic() - answered_at > PATIENCE_SECONDS:
                raise
            failures += 1
            on_trouble(f"{error.message} Trying again.")
        time.sleep(_pause_seconds(silent, failures))


def _batch(client: Client, job_id: str, after: int, *, polling: bool) -> Iterator[RemoteEvent]:
    # A broken stream ends here; the request for the job after it shows whether the service is away.
    with contextlib.suppress(ServiceUnreachableError):
        yield from client.log(job_id, after) if polling else client.stream(job_id, after)


def _report_the_rest(client: Client, job_id: str, last_seq: int, on_event: OnEvent) -> None:
    while rest := client.log(job_id, last_seq):
        for event in rest:
            on_event(event)
        last_seq = rest[-1].seq


def _is_final(error: ServiceUnreachableError | ApiError) -> bool:
    return isinstance(error, ApiError) and error.status < 500 and error.status not in (408, 429)


def _pause_seconds(silent: int, failures: int) -> float:
    if failures:
        return min(SHORTEST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
    return POLL_SECONDS if silent >= SILENT_STREAMS else 0.0
