import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from nayer_core.contract.events import MetricsEvent, Phase, PhaseEvent, ProgressEvent
from tests.api.conftest import PlayedWorker, assert_problem, wait_until
from tests.support.services import Services

Submit = Callable[..., str]
SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def finished(submit: Submit, worker: PlayedWorker) -> str:
    job_id = submit()
    claim = worker.start(job_id)
    worker.service.workers.record(
        claim,
        [
            (1, PhaseEvent(phase=Phase.DISTILL)),
            (2, MetricsEvent(epoch=1, step=10, values={"student_loss": 2.0, "generator_loss": 5.0})),
            (3, MetricsEvent(epoch=2, step=20, values={"student_loss": 1.0})),
            (4, ProgressEvent(phase=Phase.DISTILL, epoch=2, epochs=4, fraction=0.5, eta_seconds=60)),
        ],
    )
    worker.finish(claim)
    return job_id


def sse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Read a stream as a browser does."""
    event: dict[str, Any] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if not line and event:
            yield event
            event = {}
        elif line:
            field, _, value = line.partition(": ")
            event[field] = json.loads(value) if field == "data" else value


def follow(client: httpx.Client, job_id: str, **headers: str) -> list[dict[str, Any]]:
    with client.stream("GET", f"/jobs/{job_id}/events", headers=SSE | headers) as response:
        assert response.status_code == 200
        return list(sse(response.iter_lines()))


def test_the_log_is_read_in_pages(finished: str, client: httpx.Client) -> None:
    numbers: list[int] = []
    after, more = 0, True
    while more:
        page = client.get(f"/jobs/{finished}/events", params={"after": after, "limit": 3}).json()
        assert len(page["data"]) <= 3
        numbers += [event["seq"] for event in page["data"]]
        after, more = page["next"], page["has_more"]
    assert numbers == list(range(1, len(numbers) + 1))
    page = client.get(f"/jobs/{finished}/events", params={"after": after}).json()
    assert page == {"data": [], "has_more": False, "next": after}


def test_the_log_has_every_status_and_kind_of_event(finished: str, client: httpx.Client) -> None:
    events = client.get(f"/jobs/{finished}/events").json()["data"]
    statuses = [event["data"]["status"] for event in events if event["type"] == "status"]
    assert statuses == ["validating", "queued", "running", "succeeded"]
    assert {"phase", "metrics", "progress", "artifact"} <= {event["type"] for event in events}
    assert events[-1]["type"] == "status"


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}", "limit=0", "limit=1001"])
def test_invalid_page_parameters_are_refused(query: str, finished: str, client: httpx.Client) -> None:
    assert_problem(client.get(f"/jobs/{finished}/events?{query}"), 422, "invalid_parameter")


def test_metrics_come_as_series(finished: str, client: httpx.Client) -> None:
    series = client.get(f"/jobs/{finished}/metrics").json()["series"]
    assert [(point["step"], point["value"]) for point in series["student_loss"]] == [(10, 2.0), (20, 1.0)]
    by_name = client.get(f"/jobs/{finished}/metrics", params={"name": "generator_loss"}).json()["series"]
    assert set(by_name) == {"generator_loss"}


def test_long_series_are_thinned_out(submit: Submit, worker: PlayedWorker, client: httpx.Client) -> None:
    job_id = submit()
    claim = worker.start(job_id)
    points = [
        (step, MetricsEvent(epoch=1, step=step, values={"loss": float(step)})) for step in range(1, 301)
    ]
    worker.service.workers.record(claim, points)
    thinned = client.get(f"/jobs/{job_id}/metrics", params={"max_points": 10}).json()["series"]["loss"]
    assert 2 <= len(thinned) <= 10
    assert (thinned[0]["step"], thinned[-1]["step"]) == (1, 300)
    assert_problem(client.get(f"/jobs/{job_id}/metrics?max_points=1"), 422, "invalid_parameter")


def test_a_stream_of_a_finished_job_is_its_log_and_ends(finished: str, client: httpx.Client) -> None:
    log = client.get(f"/jobs/{finished}/events").json()["data"]
    streamed = follow(client, finished)
    assert [event["data"] for event in streamed] == log
    assert [int(event["id"]) for event in streamed] == [event["seq"] for event in log]
    assert [event["event"] for event in streamed] == [event["type"] for event in log]


def test_a_stream_continues_after_the_last_event_that_was_seen(finished: str, client: httpx.Client) -> None:
    whole = follow(client, finished)
    assert follow(client, finished, **{"Last-Event-ID": "4"}) == whole[4:]
    assert follow(client, finished, **{"Last-Event-ID": "no number"}) == whole
    with client.stream("GET", f"/jobs/{finished}/events?after=5", headers=SSE) as response:
        assert list(sse(response.iter_lines())) == whole[5:]
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"


def test_a_stream_after_the_last_event_is_204(finished: str, client: httpx.Client) -> None:
    last = follow(client, finished)[-1]["id"]
    response = client.get(f"/jobs/{finished}/events", headers=SSE | {"Last-Event-ID": last})
    assert (response.status_code, response.content) == (204, b"")


def test_events_reach_every_stream_live_and_once(
    submit: Submit, worker: PlayedWorker, client: httpx.Client
) -> None:
    job_id, other = submit(), submit()
    claim = worker.start(job_id)
    streams: list[list[dict[str, Any]]] = [[] for _ in range(5)]

    def listen(events: list[dict[str, Any]]) -> None:
        with client.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as response:
            for event in sse(response.iter_lines()):
                events.append(event)  # noqa: PERF402 - looked at while it grows

    threads = [threading.Thread(target=listen, args=(events,)) for events in streams]
    with client.stream("GET", f"/jobs/{other}/events", headers=SSE) as bystander:
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(events) >= 3 for events in streams))
        for line in range(1, 51):
            metrics = MetricsEvent(epoch=1, step=line, values={"loss": 1.0})
            worker.service.workers.record(claim, [(line, metrics)])
            if line == 25:
                wait_until(lambda: all(len(events) >= 3 + 10 for events in streams))
        worker.finish(claim)
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
        first = next(sse(bystander.iter_lines()))
        assert first["data"]["data"]["status"] == "validating"
    log = client.get(f"/jobs/{job_id}/events", params={"limit": 1000}).json()["data"]
    for events in streams:
        assert [event["data"] for event in events] == log


def test_a_live_event_arrives_while_the_stream_is_open(
    submit: Submit, worker: PlayedWorker, client: httpx.Client
) -> None:
    job_id = submit()
    claim = worker.start(job_id)
    with client.stream("GET", f"/jobs/{job_id}/events?after=3", headers=SSE) as response:
        lines = response.iter_lines()
        assert next(lines) == ": following"
        worker.service.workers.record(claim, [(1, PhaseEvent(phase=Phase.WARMUP))])
        assert next(sse(lines))["data"]["data"]["phase"] == "warmup"
    worker.finish(claim)


def test_a_closed_stream_does_not_affect_the_next_one(
    submit: Submit, client: httpx.Client, service: Services
) -> None:
    job_id = submit()
    for _ in range(3):
        with client.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as response:
            next(response.iter_lines())
    assert service.clients.cancel(job_id).is_terminal
    assert follow(client, job_id)[-1]["data"]["data"]["status"] == "cancelled"
