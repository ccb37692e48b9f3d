"""Downloads over connections that break, and from a store that must not get the API key."""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from nayer import ApiError, Client, ServiceUnreachableError, downloads

BODY = random.Random(0).randbytes(400_000)
KEY = "the key of this test"
NAME = "student.safetensors"


class Scripted(ThreadingHTTPServer):
    """Sends `BODY` at any path: as the service, or as the store that it redirects to."""

    target: str | None = None  # where the service sends clients
    breaks = 0  # so many answers stop after half of their content
    status = 0  # of every answer of the store; 0 sends the file
    knows_ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        script = self.server
        script.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path.endswith("/artifacts"):
            entry = {"name": NAME, "bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
            self._send(200, json.dumps({"data": [entry]}).encode())
        elif script.target is not None and "redirect=false" not in self.path:
            self._send(307, b"", Location=script.target)
        elif script.status:
            self._send(script.status, b"<Error>no</Error>")
        else:
            self._send_body()

    def _send_body(self) -> None:
        script = self.server
        range_header = self.headers.get("Range") if script.knows_ranges else None
        start = int(range_header.removeprefix("bytes=").rstrip("-")) if range_header else 0
        content = BODY[start:]
        self.send_response(206 if range_header else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if script.breaks > 0:
            script.breaks -= 1
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def running(server: Scripted) -> Iterator[Scripted]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(downloads, "FIRST_PAUSE_SECONDS", 0.001)
    yield from running(Scripted())


@pytest.fixture
def store(service: Scripted) -> Iterator[Scripted]:
    for server in running(Scripted()):
        service.target = f"{server.url}/bucket/key?X-Amz-Signature=abc"
        yield server


@pytest.fixture
def client(service: Scripted) -> Iterator[Client]:
    with Client(service.url, KEY) as connected:
        yield connected


def fetch(client: Client, folder: Path) -> bytes:
    path = folder / "here"
    client.download("j", NAME, path)
    assert list(folder.iterdir()) == [path]
    return path.read_bytes()


def test_the_store_sends_the_file_and_never_gets_the_key(
    service: Scripted, store: Scripted, client: Client, tmp_path: Path
) -> None:
    assert fetch(client, tmp_path) == BODY
    ((path, headers),) = store.requests
    assert path == "/bucket/key?X-Amz-Signature=abc"
    assert KEY not in json.dumps(headers)
    assert "authorization" not in headers
    assert all(headers["authorization"] == f"Bearer {KEY}" for _, headers in service.requests)


def test_a_redirect_followed_by_httpx_does_not_send_the_key(
    service: Scripted, store: Scripted, client: Client
) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.get(f"{service.url}/a", headers=headers, follow_redirects=True)
    assert answer.content == BODY
    assert "authorization" not in store.requests[0][1]


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_the_service_sends_the_file_where_the_store_refuses(
    service: Scripted, store: Scripted, client: Client, tmp_path: Path, status: int
) -> None:
    store.status = status
    assert fetch(client, tmp_path) == BODY
    assert service.requests[-1][0].endswith("redirect=false")


def test_the_service_sends_the_file_where_the_store_is_unreachable(
    service: Scripted, client: Client, tmp_path: Path
) -> None:
    service.target = "http://127.0.0.1:1/bucket/key"
    assert fetch(client, tmp_path) == BODY


def test_the_service_continues_a_download_that_the_store_broke(
    service: Scripted, store: Scripted, client: Client, tmp_path: Path
) -> None:
    store.breaks = 1
    assert fetch(client, tmp_path) == BODY
    assert service.requests[-1][1]["range"] == f"bytes={len(BODY) // 2}-"


def test_a_broken_download_is_resumed_at_its_last_byte(
    service: Scripted, client: Client, tmp_path: Path
) -> None:
    service.breaks = 8  # more breaks than tries without a new byte
    assert fetch(client, tmp_path) == BODY
    ranges = [headers.get("range") for _, headers in service.requests[1:]]
    assert ranges[:3] == [None, f"bytes={len(BODY) // 2}-", f"bytes={3 * len(BODY) // 4}-"]


def test_a_download_without_ranges_starts_again(service: Scripted, client: Client, tmp_path: Path) -> None:
    service.breaks, service.knows_ranges = 1, False
    assert fetch(client, tmp_path) == BODY


def test_a_download_fails_after_its_last_try(service: Scripted, client: Client, tmp_path: Path) -> None:
    service.status = 503
    with pytest.raises(ApiError):
        fetch(client, tmp_path)
    assert len(service.requests) == 1 + downloads.TRIES
    service.status = 410
    with pytest.raises(ApiError):
        fetch(client, tmp_path)
    assert len(service.requests) == 1 + downloads.TRIES + 2
    assert list(tmp_path.iterdir()) == []
    service.shutdown()
    service.server_close()
    with pytest.raises(ServiceUnreachableError):
        fetch(client, tmp_path)
