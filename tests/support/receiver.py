"""A receiver of web hooks: a real server that keeps what it is sent and answers as told."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

# The key that tests sign with, and a piece of it that must be found nowhere else.
SECRET = "whsec_c2VlZGVkLXNpZ25pbmctc2VjcmV0LW9mLXRoZS10ZXN0cw=="
SECRET_TEXTS = ("c2VlZGVkLXNpZ25pbmct", "seeded-signing-secret")


@dataclass
class Received:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    def document(self) -> dict[str, Any]:
        """The body, read."""
        event: dict[str, Any] = json.loads(self.body)
        return event


@dataclass
class Receiver:
    """Answers with the statuses of `answers` one after the other, then always with `status`."""

    status: int = 204
    answers: list[int] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    url: str = ""
    port: int = 0
    # Called before each answer, e.g. to wait.
    before: Callable[[], Awaitable[object]] | None = None
    endless_body: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application."""
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.received.append(Received(scope["raw_path"].decode(), headers, body))
        if self.before is not None:
            await self.before()
        status = self.answers.pop(0) if self.answers else self.status
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        while self.endless_body and not await _wait_for_disconnect(receive):
            await send({"type": "http.response.body", "body": b"x" * 1024, "more_body": True})
        await send({"type": "http.response.body", "body": b"answer of the receiver"})


async def _wait_for_disconnect(receive: Any) -> bool:
    try:
        message = await asyncio.wait_for(receive(), 0.05)
    except TimeoutError:
        return False
    return bool(message["type"] == "http.disconnect")


@contextlib.contextmanager
def receiving(receiver: Receiver, certificate: Path | None = None) -> Iterator[Receiver]:
    """Run a receiver on a free port of this machine; with a certificate (and its key), by TLS."""
    config = uvicorn.Config(
        receiver,
        port=0,
        lifespan="off",
        ws="none",
        log_level="critical",
        ssl_certfile=str(certificate) if certificate else None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline, "the receiver did not start"
            time.sleep(0.01)
        receiver.port = server.servers[0].sockets[0].getsockname()[1]
        receiver.url = f"{'https' if certificate else 'http'}://127.0.0.1:{receiver.port}/hook?token=1"
        yield receiver
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """A server that sends one byte of its header at a time and never comes to the end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()
        thread = threading.Thread(target=_drip, args=(listener, stopped))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            stopped.set()
            thread.join(10)


def _drip(listener: socket.socket, stopped: threading.Event) -> None:
    listener.settimeout(10)
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stopped.wait(0.02):
                connection.sendall(b"a")


def trusting(certificates: Any) -> ssl.SSLContext:
    """What a client needs to trust a `trustme.CA`."""
    context = ssl.create_default_context()
    certificates.configure_trust(context)
    return context
