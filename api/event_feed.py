"""Live events: one poller in each process queries the database for all open streams at once.

A stream first reads the stored log page by page, then subscribes with its last number. The poller
queries the events after that number, so no event is missed or sent twice.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool

from api.views import event_body
from jobs.errors import JobsError
from jobs.service.for_clients import ClientJobs
from jobs.states import TERMINAL
from jobs.values.log import JobEvent

PAGE = 500  # events in one query while a stream catches up
log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Subscription:
    job_id: str
    cursor: int
    inbox: list[JobEvent] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class EventFeed:
    """Sends new events to the streams of this process.

    Args:
        service: the source of events.
        poll_seconds: time between two queries, which is the largest delay of a live event.
        keep_alive_seconds: silence after which a comment is sent, so that no proxy closes the connection.
    """

    def __init__(self, service: ClientJobs, *, poll_seconds: float = 0.5, keep_alive_seconds: float = 15.0):
        self._service = service
        self._poll_seconds = poll_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._subscriptions: set[_Subscription] = set()
        self._closing = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll while the application runs; close the open streams when it stops."""
        poller = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self.close()
            poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await poller

    def close(self) -> None:
        """End every stream; clients reconnect with Last-Event-ID and miss nothing."""
        self._closing = True
        for subscription in self._subscriptions:
            subscription.arrived.set()

    async def stream(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """Yield the job's events with a number above `after` as text/event-stream, up to the last one."""
        cursor = after
        while page := await run_in_threadpool(self._service.events, job_id, cursor, PAGE):
            for event in page:
                yield encode(event)
                if ends_job(event):
                    return
            cursor = page[-1].seq
        subscription = _Subscription(job_id, cursor)
        self._subscriptions.add(subscription)
        try:
            async for chunk in self._follow(subscription):
                yield chunk
        finally:
            self._subscriptions.discard(subscription)

    async def _follow(self, subscription: _Subscription) -> AsyncIterator[bytes]:
        yield b": following\n\n"
        while not self._closing:
            try:
                await asyncio.wait_for(subscription.arrived.wait(), self._keep_alive_seconds)
            except TimeoutError:
                yield b": keep-alive\n\n"
                continue
            subscription.arrived.clear()
            events, subscription.inbox = subscription.inbox, []
            for event in events:
                yield encode(event)
                if ends_job(event):
                    return

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._deliver()
            except JobsError as error:
                log.warning("events are late: %s", error)
            except Exception:
                log.exception("events are late")

    async def _deliver(self) -> None:
        # A stream that has not taken its last batch is skipped: a slow client holds at most one batch.
        ready = [item for item in self._subscriptions if not item.inbox]
        if not ready:
            return
        cursors: dict[str, int] = {}
        for item in ready:
            cursors[item.job_id] = min(item.cursor, cursors.get(item.job_id, item.cursor))
        events: dict[str, list[JobEvent]] = {}
        for event in await run_in_threadpool(self._service.events_of_many, cursors):
            events.setdefault(event.job_id, []).append(event)
        for item in ready:
            item.inbox = [event for event in events.get(item.job_id, ()) if event.seq > item.cursor]
            if item.inbox:
                item.cursor = item.inbox[-1].seq
                item.arrived.set()


def encode(event: JobEvent) -> bytes:
    """One event in the format of the HTML standard, 9.2.6."""
    data = event_body(event).model_dump_json()
    return f"id: {event.seq}\nevent: {event.type}\ndata: {data}\n\n".encode()


def ends_job(event: JobEvent) -> bool:
    """Whether no event can come after this one."""
    return event.type == "status" and event.data.get("status") in TERMINAL
