import asyncio
from collections.abc import Awaitable, Callable

from api.event_feed import EventFeed
from cli.local.embedded import EmbeddedPostgres
from nayer_core.contract.events import MetricsEvent
from tests.api.conftest import PlayedWorker
from tests.support.services import Services

Submit = Callable[..., str]


def run(
    service: Services, use: Callable[[EventFeed], Awaitable[None]], keep_alive_seconds: float = 15
) -> None:
    async def within() -> None:
        feed = EventFeed(service.clients, poll_seconds=0.02, keep_alive_seconds=keep_alive_seconds)
        async with feed.running(), asyncio.timeout(20):
            await use(feed)

    asyncio.run(within())


def test_a_stream_without_events_sends_keep_alives(submit: Submit, service: Services) -> None:
    job_id = submit()

    async def use(feed: EventFeed) -> None:
        stream = feed.stream(job_id, after=1)
        chunks = [await anext(stream) for _ in range(3)]
        assert chunks == [b": following\n\n", b": keep-alive\n\n", b": keep-alive\n\n"]
        await stream.aclose()  # type: ignore[attr-defined]

    run(service, use, keep_alive_seconds=0.05)


def test_streams_end_when_the_feed_closes(submit: Submit, service: Services) -> None:
    job_id = submit()

    async def use(feed: EventFeed) -> None:
        stream = feed.stream(job_id, after=1)
        await anext(stream)
        feed.close()
        assert [chunk async for chunk in stream] == []

    run(service, use)


def test_a_slow_reader_holds_one_batch_and_misses_nothing(
    submit: Submit, service: Services, worker: PlayedWorker
) -> None:
    job_id = submit()
    claim = worker.start(job_id)

    async def use(feed: EventFeed) -> None:
        stream = feed.stream(job_id, after=3)
        await anext(stream)
        for line in range(1, 31):
            event = MetricsEvent(epoch=1, step=line, values={"loss": 1.0})
            await asyncio.to_thread(service.workers.record, claim, [(line, event)])
        await asyncio.to_thread(worker.finish, claim)
        await asyncio.sleep(0.2)  # many polls pass while nothing is read
        text = b"".join([chunk async for chunk in stream]).decode()
        numbers = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
        assert numbers == list(range(4, 4 + len(numbers)))
        assert text.count("event: metrics") == 30

    run(service, use)


def test_a_database_outage_delays_events_and_loses_none(
    submit: Submit, service: Services, postgres: EmbeddedPostgres
) -> None:
    job_id = submit()

    async def use(feed: EventFeed) -> None:
        stream = feed.stream(job_id, after=1)
        await anext(stream)
        await asyncio.to_thread(postgres.kill)
        await asyncio.sleep(0.2)  # the poller fails meanwhile
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(service.clients.cancel, job_id)
        assert b"cancelled" in b"".join([chunk async for chunk in stream])

    run(service, use)
