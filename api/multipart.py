"""Reads a multipart/form-data body (RFC 7578) as a stream of parts; no part is held in memory.

The framework's own `UploadFile` writes a whole body of any size to disk before a handler runs.
Here the consumer pulls chunks through the parser of python-multipart, so memory holds one chunk of
the network and one of the store.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum, auto

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from api.problems import Problem, shorten

MAX_BOUNDARY_CHARS = 70  # RFC 2046, 5.1.1
MAX_FILENAME_CHARS = 200
WINDOW_SECONDS = 120.0
MIN_BYTES_PER_SECOND = 1024  # over each window; slower than any modem
PLAIN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")


class _Mark(Enum):
    PART_ENDS = auto()
    BODY_ENDS = auto()


@dataclass(frozen=True)
class _Head:
    name: str
    filename: str | None


@dataclass(frozen=True)
class Part:
    """One part of the body.

    Attributes:
        name: the name of the form field.
        filename: what the client calls the file: a label, never a path.
        chunks: the bytes; the consumer must read them to the end before the next part.
    """

    name: str
    filename: str | None
    chunks: AsyncIterator[bytes]


def boundary_of(content_type: str | None) -> bytes:
    """The boundary in a Content-Type.

    Raises:
        Problem: `unsupported_media_type` if it is not multipart/form-data with a usable boundary.
    """
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media_type != b"multipart/form-data":
        raise Problem(
            "unsupported_media_type", f"Content-Type is {content_type or 'missing'}, not multipart/form-data."
        )
    if not 1 <= len(boundary) <= MAX_BOUNDARY_CHARS:
        raise Problem(
            "unsupported_media_type",
            f"The boundary has {len(boundary)} characters; it must have 1 to {MAX_BOUNDARY_CHARS}.",
        )
    return boundary


class MultipartBody:
    """Reads the parts of one body in order.

    Args:
        stream: the body's chunks, of any size.
        boundary: the separator of the parts.
        window_seconds: length of a window, counted in seconds of waiting for the client. In each window
            the client must send `MIN_BYTES_PER_SECOND` on average. Without this rule a client that
            vanished, or sends a byte a minute, would hold its connection for ever.
    """

    def __init__(self, stream: AsyncIterator[bytes], boundary: bytes, window_seconds: float = WINDOW_SECONDS):
        self._stream = stream
        self._window_seconds = window_seconds
        self._waited_seconds, self._window_bytes = 0.0, 0
        self._tokens: deque[_Head | bytes | _Mark] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": lambda data, start, end: self._tokens.append(data[start:end]),
                "on_part_end": lambda: self._tokens.append(_Mark.PART_ENDS),
                "on_end": lambda: self._tokens.append(_Mark.BODY_ENDS),
            },
        )

    async def parts(self) -> AsyncIterator[Part]:
        """Yield each part after the one before it was read to its end.

        Raises:
            Problem: `malformed_body`, `upload_stalled`, or `truncated_body` without a last boundary.
        """
        while (token := await self._next()) is not _Mark.BODY_ENDS:
            if not isinstance(token, _Head):
                raise AssertionError("the part before was not read to its end")
            yield Part(token.name, token.filename, self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        while (token := await self._next()) is not _Mark.PART_ENDS:
            assert isinstance(token, bytes)  # noqa: S101 - the parser gives a part only bytes
            yield token

    async def _next(self) -> _Head | bytes | _Mark:
        while not self._tokens:
            chunk = await self._receive()
            if chunk is None:
                raise Problem("truncated_body", "The body ended inside a part or before the last boundary.")
            self._feed(chunk)
        return self._tokens.popleft()

    async def _receive(self) -> bytes | None:
        """Wait for a chunk while the client keeps the minimum rate; None at the end."""
        least = self._window_seconds * MIN_BYTES_PER_SECOND
        window_age = 0.0 if self._window_bytes >= least else self._waited_seconds
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._window_seconds - window_age):
                chunk = await anext(self._stream, None)
        except ClientDisconnect:
            return None
        except TimeoutError as error:
            detail = f"Less than {least:,.0f} bytes of the body arrived in {self._window_seconds:g} seconds."
            raise Problem("upload_stalled", detail, headers={"Connection": "close"}) from error
        self._waited_seconds += time.monotonic() - began
        if self._waited_seconds >= self._window_seconds:
            self._waited_seconds, self._window_bytes = self._waited_seconds - self._window_seconds, 0
        self._window_bytes += len(chunk or b"")
        return chunk

    def _feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem("malformed_body", "A boundary or a part's header breaks RFC 7578.") from error

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        self._tokens.append(_head(self._headers))


def _head(headers: dict[bytes, bytes]) -> _Head:
    disposition, options = parse_options_header(headers.get(b"content-disposition"))
    if disposition != b"form-data" or not options.get(b"name"):
        raise Problem("malformed_body", "A part lacks 'Content-Disposition: form-data; name=...'.")
    encoding = headers.get(b"content-transfer-encoding", b"").strip().lower()
    if encoding not in PLAIN_ENCODINGS:
        raise Problem("malformed_body", "A part has a Content-Transfer-Encoding; send its bytes as they are.")
    filename = options.get(b"filename")
    name = shorten(options[b"name"].decode("utf-8", "replace"))
    return _Head(name, None if filename is None else label(filename))


def label(filename: bytes) -> str | None:
    """The last component of the client's path: at most 200 printable characters; None if there are none."""
    text = filename.decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in text if character.isprintable()).strip()
    return printable[:MAX_FILENAME_CHARS] or None
