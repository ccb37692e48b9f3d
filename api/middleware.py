"""What wraps every request: the limit on declared bytes, and the measurements."""

import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.measurements import HttpMeasurements
from api.problems import Problem

MAX_OTHER_BYTES = 64 * 1024  # no route but the uploads reads a body


class BodyLimit:
    """Refuses a request whose Content-Length is over the limit, before a byte of it is read.

    The framework's own check answers in plain text, and in place of every other answer.

    Args:
        app: what is wrapped.
        upload_paths: paths that take whole files.
        max_upload_bytes: limit of these; what is sent without a length is counted by `api.uploads`.
    """

    def __init__(self, app: ASGIApp, upload_paths: Collection[str], max_upload_bytes: int):
        self._app = app
        self._upload_paths = frozenset(upload_paths)
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with `payload_too_large`."""
        declared = _content_length(scope) if scope["type"] == "http" else 0
        uploads = scope["type"] == "http" and scope["path"] in self._upload_paths
        limit = self._max_upload_bytes if uploads else MAX_OTHER_BYTES
        if declared <= limit:
            await self._app(scope, receive, send)
            return
        problem = Problem("payload_too_large", f"The body has {declared:,} bytes; the limit is {limit:,}.")
        await problem.response(scope["path"])(scope, receive, send)


class Measured:
    """Counts and times every request under its route's template, never under its path.

    Args:
        app: what is wrapped.
        measurements: where the numbers go.
    """

    def __init__(self, app: ASGIApp, measurements: HttpMeasurements):
        self._app = app
        self._measurements = measurements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note its status and duration up to the start of the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                seconds = time.perf_counter() - started
                self._measurements.observe(scope["method"], route, message["status"], seconds)
            await send(message)

        await self._app(scope, receive, noting)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
