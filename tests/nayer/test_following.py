"""A client against a service whose connections break: a real server with a script."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nayer import (
    ApiError,
    Client,
    DownloadCorruptError,
    RemoteEvent,
    ServiceUnreachableError,
    follow,
    following,
)

EVENTS: list[dict[str, Any]] = [
    {"seq": seq, "type": "status", "data": {"status": status}, "created_at": "2026-01-01T00:00:00Z"}
    for seq, status in enumerate(("validating", "queued", "running", "succeeded"), start=1)
]
BODY = b"weights" * 1000


class Scripted(ThreadingHTTPServer):
    """Answers like the service; a stream breaks off after `events_a_stream` events."""

    events_a_stream = 1
    streaming = True
    sha256 = hashlib.sha256(BODY).hexdigest()
    refusals = 0  # so many requests are answered 503 first
    last_seq = 0  # the highest event sent

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        script, path = self.server, self.path.partition("?")[0]
        if script.refusals > 0:
            script.refusals -= 1
            self._json({"code": "service_unavailable", "detail": "away"}, 503, {"Retry-After": "0"})
        elif path == "/jobs/j/events" and "text/event-stream" in self.headers["Accept"]:
            script.requests.append("stream")
            self._stream(int(self.headers["Last-Event-ID"]))
        elif path == "/jobs/j/events":
            script.requests.append("poll")
            self._json({"data": self._after(int(self.path.partition("after=")[2]))})
        elif path == "/jobs/j":
            status = EVENTS[script.last_seq - 1]["data"]["status"]
            body = {"id": "j", "status": status, "is_terminal": status == "succeeded"}
            self._json({**body, "created_at": "2026-01-01T00:00:00Z"})
        elif path == "/jobs/j/artifacts":
            self._json({"data": [{"name": "a.bin", "bytes": len(BODY), "sha256": script.sha256}]})
        elif path == "/jobs/j/artifacts/a.bin":
            self._send(BODY, 200, {})
        else:
            self._json({"code": "job_not_found", "detail": "There is no such job."}, 404)

    def _after(self, seq: int) -> list[dict[str, Any]]:
        events = EVENTS[seq : seq + self.server.events_a_stream]
        self.server.last_seq = max([self.server.last_seq, *(event["seq"] for event in events)])
        return events

    def _stream(self, after: int) -> None:
        self.send_response(200)
        self.end_headers()
        if self.server.streaming:
            for event in self._after(after):
                self.wfile.write(f": beat\nid: {event['seq']}\ndata: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b'id: 99\ndata: {"broken')  # and the connection closes

    def _json(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(body).encode(), status, headers or {})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(following, "SHORTEST_PAUSE_SECONDS", 0.01)
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(script: Scripted) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{script.server_address[1]}") as connected:
        yield connected


def follow_all(client: Client, job_id: str = "j") -> tuple[list[int], list[str], str]:
    numbers: list[int] = []
    troubles: list[str] = []
    job = follow(client, job_id, lambda event: numbers.append(event.seq), troubles.append)
    return numbers, troubles, job.status


def test_broken_streams_are_resumed_without_loss_or_repeat(script: Scripted, client: Client) -> None:
    assert follow_all(client) == ([1, 2, 3, 4], [], "succeeded")
    assert script.requests.count("stream") == 4


def test_streams_without_events_are_replaced_by_polling(script: Scripted, client: Client) -> None:
    script.streaming, script.last_seq = False, 1
    assert follow_all(client) == ([1, 2, 3, 4], [], "succeeded")
    assert script.requests[:3] == ["stream"] * following.SILENT_STREAMS
    assert set(script.requests[3:]) == {"poll"}


def test_a_request_to_a_busy_service_is_repeated(script: Scripted, client: Client) -> None:
    script.refusals, script.events_a_stream = 2, 4
    numbers, troubles, status = follow_all(client)
    assert (numbers, status) == ([1, 2, 3, 4], "succeeded")
    assert troubles


def test_an_unknown_job_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ApiError, match="job_not_found"):
        follow_all(client, "other")


def test_following_fails_where_nothing_answers_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(following, "SHORTEST_PAUSE_SECONDS", 0.01)
    with Client("http://127.0.0.1:9") as away, pytest.raises(ServiceUnreachableError):
        follow_all(away)


def test_a_download_is_complete_and_verified_or_leaves_no_file(
    script: Scripted, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "a.bin"
    counts: list[tuple[int, int]] = []
    assert (
        client.download("j", "a.bin", path, lambda done, total: counts.append((done, total))) == script.sha256
    )
    assert path.read_bytes() == BODY
    assert counts[-1] == (len(BODY), len(BODY))
    path.write_bytes(b"mine")
    script.sha256 = "0" * 64
    with pytest.raises(DownloadCorruptError):
        client.download("j", "a.bin", path)
    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


def test_events_have_the_time_of_the_service(client: Client) -> None:
    first: RemoteEvent = next(iter(client.stream("j")))
    assert first.created_at.isoformat() == "2026-01-01T00:00:00+00:00"
