"""Limits of a connection, over real sockets to a real server with small limits."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from api.connections import KIB, ConnectionLimits
from api.multipart import MultipartBody
from jobs.settings import Settings
from tests.api.bodies import BOUNDARY, CONTENT_TYPE, spec_part
from tests.api.conftest import MIB, PlayedWorker, serve, wait_until

LIMITS = ConnectionLimits(
    head_bytes=64 * KIB, head_seconds=0.6, drain_seconds=0.6, unread_seconds=0.6, pipelined=4, connections=8
)
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST = f"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\n".encode()


@pytest.fixture(scope="module")
def bounded(settings: Settings) -> Iterator[str]:
    yield from serve(settings, LIMITS)


@pytest.fixture
def connect(bounded: str) -> Iterator[Callable[[], socket.socket]]:
    address = urlsplit(bounded)
    with contextlib.ExitStack() as closing:
        yield lambda: closing.enter_context(
            socket.create_connection((address.hostname, address.port), timeout=10)
        )


def everything(connection: socket.socket) -> bytes:
    """Receive all bytes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def send(connection: socket.socket, data: bytes) -> None:
    """Send bytes; the server may have closed the connection already."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(data)


def assert_refused(answer: bytes, status: int, code: str) -> None:
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert b"content-type: application/problem+json" in answer
    assert b"connection: close" in answer
    assert f'"code":"{code}"'.encode() in answer


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-A: " + b"a" * MIB,
        GET + b"".join(b"X-%d: %s\r\n" % (index, b"a" * 100) for index in range(5000)),
        GET + b"X-A: " + b"a" * 65 * KIB + b"\r\n\r\n",
        b"GET /" + b"a" * MIB,
        b"GET /?" + b"a" * 65 * KIB + b" HTTP/1.1\r\n\r\n",
        b"\r\n" * MIB,
    ],
    ids=["one value", "many headers", "one whole head", "path", "query", "line breaks"],
)
def test_a_head_over_the_limit_is_refused(head: bytes, connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    send(connection, head)
    assert_refused(everything(connection), 431, "headers_too_large")


def test_a_large_head_within_the_limit_is_read(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(GET + b"Cookie: " + b"a" * 60 * KIB + b"\r\nConnection: close\r\n\r\n")
    assert everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "rest", [b"0\r\nX-A: " + b"a" * MIB, b"1;" + b"a" * MIB], ids=["trailer", "chunk extension"]
)
def test_trailers_and_chunk_extensions_are_bounded(rest: bytes, connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    send(connection, POST + b"Transfer-Encoding: chunked\r\n\r\n" + rest)
    began = time.monotonic()
    everything(connection)
    assert time.monotonic() - began < 5


def test_a_trailer_is_not_read_as_a_header(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    connection.sendall(head + b"1\r\nx\r\n0\r\nIdempotency-Key: \r\n\r\n")
    assert b'"code":"malformed_body"' in everything(connection)


def test_bytes_that_are_not_http_get_a_problem_document(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(b"nonsense\r\n\r\n")
    assert_refused(everything(connection), 400, "malformed_request")


@pytest.mark.parametrize("pause", [0.05, 0.2])
def test_a_head_that_does_not_end_in_time_is_refused(
    pause: float, connect: Callable[[], socket.socket]
) -> None:
    connection = connect()
    began = time.monotonic()
    for byte in GET:
        send(connection, bytes([byte]))
        time.sleep(pause)
        if time.monotonic() - began > LIMITS.head_seconds + 0.3:
            break
    assert_refused(everything(connection), 408, "headers_stalled")


def test_a_connection_that_sends_nothing_is_closed_without_an_answer(
    connect: Callable[[], socket.socket],
) -> None:
    assert everything(connect()) == b""


def test_line_breaks_between_requests_do_not_keep_a_connection(
    connect: Callable[[], socket.socket],
) -> None:
    connection = connect()
    connection.sendall(GET + b"\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    began = time.monotonic()
    while not is_closed(connection):
        send(connection, b"\r\n")
        time.sleep(0.05)
        assert time.monotonic() - began < 5


def test_a_slow_client_and_a_reused_connection_are_served(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    for _ in range(4):
        for piece in (GET[:9], GET[9:20], GET[20:], b"\r\n"):
            connection.sendall(piece)
            time.sleep(0.05)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        time.sleep(LIMITS.head_seconds)  # idle for longer than a head may take


def test_the_wait_for_the_rest_of_a_refused_body_is_bounded(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(POST + b"Content-Length: 1000000000000\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    began = time.monotonic()
    while not is_closed(connection):
        send(connection, b"x")
        time.sleep(0.05)
        assert time.monotonic() - began < 5


def test_a_client_that_reads_nothing_is_disconnected(
    connect: Callable[[], socket.socket], submit: Callable[..., str], worker: PlayedWorker
) -> None:
    job_id = submit()
    worker.finish(worker.start(job_id), b"x" * 24 * MIB)  # more than two sockets hold
    connection = connect()
    connection.sendall(f"GET /jobs/{job_id}/student HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    time.sleep(4 * LIMITS.unread_seconds)
    assert len(everything(connection)) < 24 * MIB


def test_half_open_requests_do_not_block_other_clients(
    connect: Callable[[], socket.socket], bounded: str
) -> None:
    half_open = []
    for _ in range(5 * LIMITS.connections):
        half_open.append(connect())
        half_open[-1].sendall(GET)
        if len(half_open) % 10 == 0:
            assert httpx.get(f"{bounded}/healthz", timeout=2).status_code == 200
    assert sum(is_closed(connection) for connection in half_open) >= 4 * LIMITS.connections


def test_a_connection_over_the_limit_gets_503_with_retry_after(
    connect: Callable[[], socket.socket], submit: Callable[..., str], bounded: str
) -> None:
    stream = f"GET /jobs/{submit()}/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
    streams = [connect() for _ in range(LIMITS.connections)]
    for connection in streams:
        connection.sendall(stream.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    answer = everything(connect())
    assert_refused(answer, 503, "too_many_connections")
    assert b"retry-after: 5" in answer
    streams[0].close()
    wait_until(lambda: _is_served(bounded))


def _is_served(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:  # refused before the request was sent
        return False


def test_requests_may_be_sent_ahead_up_to_a_limit(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    last = GET + b"Connection: close\r\n\r\n"
    connection.sendall((GET + b"\r\n") * LIMITS.pipelined + last)
    assert everything(connection).count(b"HTTP/1.1 200 ") == LIMITS.pipelined + 1
    connection = connect()
    send(connection, (GET + b"\r\n") * 5000)
    assert b"HTTP/1.1 400" not in everything(connection)  # it would look like the first one's answer


def test_a_body_below_the_least_rate_is_refused(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MultipartBody.__init__, "__defaults__", (0.5,))
    connection = connect()
    connection.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + spec_part())
    connection.sendall(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="teacher"\r\n\r\n'.encode())
    began = time.monotonic()
    connection.settimeout(0.05)
    answer = b""
    while not answer:
        send(connection, b"x")
        with contextlib.suppress(TimeoutError):
            answer = connection.recv(65536)
        assert time.monotonic() - began < 5
    assert_refused(answer, 408, "upload_stalled")
    assert time.monotonic() - began > 0.4
