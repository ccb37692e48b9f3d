"""The program's stdout: events as JSON lines; the frequent kinds are limited in rate."""

import time
from collections.abc import Callable
from typing import TextIO

from nayer_core.contract.events import Event, MetricsEvent, ProgressEvent

MIN_SECONDS_BETWEEN = 0.5  # of the same kind: two a second


class EventStream:
    """Writes events in order; progress and metrics at most two a second each.

    An event that comes too early waits and is replaced by the next of its kind. The last one is never lost:
    it is written before any event of another kind. Waiting metrics keep all names, with their newest values.

    Args:
        out: receives one JSON object a line, flushed line by line.
        clock: seconds, monotonic.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic):
        self._out = out
        self._clock = clock
        self._written_at: dict[str, float] = {}
        self._waiting: dict[str, Event] = {}

    def emit(self, event: Event) -> None:
        """Write the event now, or let it wait if one of its kind was written just before."""
        if not isinstance(event, ProgressEvent | MetricsEvent):
            self.flush()
            self._write(event)
            return
        waiting = self._waiting.pop(event.event, None)
        if isinstance(waiting, MetricsEvent) and isinstance(event, MetricsEvent):
            event = event.model_copy(update={"values": {**waiting.values, **event.values}})
        if self._clock() - self._written_at.get(event.event, float("-inf")) >= MIN_SECONDS_BETWEEN:
            self._write(event)
        else:
            self._waiting[event.event] = event

    def flush(self) -> None:
        """Write the waiting events."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for event in waiting:
            self._write(event)

    def _write(self, event: Event) -> None:
        self._out.write(event.model_dump_json() + "\n")
        self._out.flush()
        self._written_at[event.event] = self._clock()
