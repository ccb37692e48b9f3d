"""One stored file as an HTTP response: ranges, conditions and digests (RFC 9110, RFC 9530)."""

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.problems import Problem
from jobs.files.store import Storage
from jobs.values.files import Artifact

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class Span:
    """Bytes `start` up to but not including `end`."""

    start: int
    end: int


def requested_span(header: str | None, size: int) -> Span | None:
    """The part of a file of `size` bytes that a Range header requests.

    Returns None, as RFC 9110 allows, for several ranges, other units and malformed headers.

    Raises:
        Problem: `range_not_satisfiable`.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size or start >= end:
        raise Problem(
            "range_not_satisfiable",
            f"{match[0]} holds no byte of a file of {size:,} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return Span(start, end)


async def serve(
    request: Request, artifact: Artifact, storage: Storage, redirect_seconds: float | None
) -> Response:
    """Answer a GET or HEAD for `artifact`.

    The strong ETag is the SHA-256 of the whole file. So a client can resume a download later, or
    from another process, and get the same bytes. If clients can reach the store, a GET is redirected
    to it, except a GET with If-Range, because the store has an ETag of its own.

    Args:
        redirect_seconds: lifetime of a redirect; None for no redirect.

    Raises:
        Problem: `range_not_satisfiable`.
        JobsError: the store does not answer.
    """
    etag = f'"{artifact.sha256}"'
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    headers = {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{artifact.name}"',
        "X-Content-Type-Options": "nosniff",
    }
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    range_header = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    span = requested_span(range_header, artifact.bytes)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{artifact.bytes}"
    start, end = (span.start, span.end) if span else (0, artifact.bytes)
    headers["Content-Length"] = str(end - start)
    status = 206 if span else 200
    if redirect_seconds is not None and request.method == "GET" and "if-range" not in request.headers:
        url = await run_in_threadpool(storage.download_url, artifact.key, redirect_seconds)
        if url is not None:
            return _redirect(url, headers)
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    chunks = storage.stream_async(artifact.key, start, end)
    first = await anext(chunks)  # a failing store must lead to 503, not to a truncated 200
    return StreamingResponse(_join(first, chunks), status, headers, artifact.media_type)


def _redirect(url: str, headers: dict[str, str]) -> Response:
    public = {name: headers[name] for name in ("ETag", "Repr-Digest", "Accept-Ranges")}
    # Anyone with the URL can read the file: no cache may store it, and no Referer may reveal it.
    secret = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=307, headers={**public, **secret, "Location": url})


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag`, compared weakly."""
    candidates = [item.strip().removeprefix("W/") for item in (header or "").split(",")]
    return "*" in candidates or etag.removeprefix("W/") in candidates


async def _join(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
