"""Limits on connections before the application sees a request: bytes, seconds, and their number.

uvicorn's parser accepts request heads of any size at any speed. So 20 KB of traffic from one machine
can occupy every descriptor, and a header of 64 MB can keep a core busy for seconds. This subclass of
uvicorn's protocol counts and times the input of the parser. `api.multipart` limits the bodies.

A connection is idle while no response to it is pending. At the limit of connections, the one that has
been idle longest is closed for a new one. So half-open requests cannot keep other clients out.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.problems import Problem, shorten

KIB = 1024


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of each connection, and of the number of connections.

    Args:
        head_bytes: request line and headers together; the same limit applies to trailers.
        head_seconds: from the connection, or the first byte of a later request, to the end of the head.
        drain_seconds: time for the rest of a body after the response to its request.
        unread_seconds: how long a client may leave a response unread.
        pipelined: requests that wait behind the current one.
        connections: open at once; each may need a second descriptor, for a file or the database.
    """

    head_bytes: int = 64 * KIB
    head_seconds: float = 15.0
    drain_seconds: float = 30.0
    unread_seconds: float = 120.0
    pipelined: int = 16
    connections: int = 2000


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits and the idle list that its connections share.

    Args:
        app: the application.
        limits: limits of the connections.
        options: uvicorn's own options.
    """

    def __init__(self, app: Any, limits: ConnectionLimits, **options: Any):
        super().__init__(app, http=BoundedHttpProtocol, **options)
        self.limits = limits
        self.idle: dict[BoundedHttpProtocol, None] = {}  # longest idle first


class _Stage(Enum):
    """The part of a message that the client's next byte belongs to."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class _HeadRefused(Exception):
    """Stops the parser; httptools reports it as an error of the callback that raised it."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within `ConnectionLimits`."""

    def __init__(
        self,
        config: BoundedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ):
        super().__init__(config, server_state, app_state, _loop)
        self._limits = config.limits
        self._idle = config.idle
        self._stage = _Stage.BETWEEN
        self._head_bytes = 0  # of names and values that the parser has reported
        self._unreported_bytes = 0  # fed to the parser since its last progress in the message
        self._refusal: Problem | None = None
        self._answering: RequestResponseCycle | None = None  # uvicorn knows only the newest of a pipeline
        self._deadline: asyncio.TimerHandle | None = None
        self._read_deadline: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Accept the connection; if there are too many, close the one that has been idle longest."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            longest_idle = next(iter(self._idle), None)
            if longest_idle is None:
                self._refuse("too_many_connections", "Every connection of this service is in use.")
                return
            longest_idle._give_way()
        self._idle[self] = None
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._idle.pop(self, None)
        self._cancel_deadline()
        self._cancel_read_deadline()
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then check the size and the time of the head."""
        self._unreported_bytes += len(data)
        super().data_received(data)
        if self._unreported_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self._refuse_head()
        self._watch()

    def pause_writing(self) -> None:
        """Start a deadline: the client reads more slowly than the application writes, and must not stop."""
        super().pause_writing()
        if self._read_deadline is None:
            self._read_deadline = self.loop.call_later(self._limits.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the deadline: the client reads again."""
        self._cancel_read_deadline()
        super().resume_writing()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._stage = _Stage.HEAD
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A complete header, or a complete trailer once the body has begun."""
        self._count(len(name) + len(value) + len(b": \r\n"))
        if self._stage is _Stage.HEAD:  # uvicorn would add a trailer to the headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application gets the request."""
        if len(self.pipeline) >= self._limits.pipelined:
            detail = f"More than {self._limits.pipelined} requests wait behind an unanswered one."
            self._stop_parser("malformed_request", detail)
        self._enter(_Stage.BODY)
        self._idle.pop(self, None)
        super().on_headers_complete()
        self._answering = self._answering or self.cycle

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unreported_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has ended."""
        self._enter(_Stage.BETWEEN)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response has been written, but the client may not have read it yet."""
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self._answering is None and not self.transport.is_closing():
            self._idle[self] = None
        self._watch()

    # Bounds

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage
        self._unreported_bytes = 0
        self._cancel_deadline()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            self._stop_parser(*self._too_large())

    def _stop_parser(self, code: str, detail: str) -> None:
        self._refusal = Problem(code, detail)
        raise _HeadRefused

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the parser's words
        """Send the error for invalid or excessive input to the parser; uvicorn calls this."""
        refusal = self._refusal or Problem("malformed_request", "The request breaks the syntax of HTTP/1.1.")
        self._refuse(refusal.code, refusal.detail)

    def _refuse_head(self) -> None:
        self._refuse(*self._too_large())

    def _too_large(self) -> tuple[str, str]:
        limit = self._limits.head_bytes
        return "headers_too_large", f"The request line and headers have more than {limit:,} bytes."

    def _refuse(self, code: str, detail: str) -> None:
        if self._answering is None:  # else it would look like the response to an earlier request
            self.transport.write(self._answer(Problem(code, detail)))
        self._disconnect()
        self.transport.close()
        self._watch()

    def _disconnect(self) -> None:
        """Drop everything that the application still writes."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _answer(self, problem: Problem) -> bytes:
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")
        response = problem.response(shorten(path) or "/")
        status = HTTPStatus(response.status_code)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)

    # Deadlines

    def _patience(self) -> float | None:
        """Seconds that the client has for its next action; None if the server waits for none."""
        if self.transport.is_closing():
            return self._limits.unread_seconds
        if self._stage is _Stage.HEAD:
            return self._limits.head_seconds
        if self._answering is not None:
            return None
        if self._stage is _Stage.BODY:
            return self._limits.drain_seconds
        # uvicorn's timer of idle connections ends with the first byte, which may be a stray line break.
        return self._limits.head_seconds if self.timeout_keep_alive_task is None else None

    def _watch(self) -> None:
        """Start the deadline that `_patience` returns, unless one runs already."""
        patience = self._patience()
        if patience is None:
            self._cancel_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(patience, self._expire)

    def _expire(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            self.transport.abort()
        elif self._stage is _Stage.HEAD:
            seconds = self._limits.head_seconds
            self._refuse("headers_stalled", f"The headers did not end within {seconds:g} seconds.")
        else:
            self._give_way()

    def _give_way(self) -> None:
        self._idle.pop(self, None)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None
