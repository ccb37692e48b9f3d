"""Middleware that measures every request."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.measurements import HttpMeasurements


class Measured:
    """Counts and times every request under its route's template, never under its path.

    Args:
        app: the application to measure.
        measurements: receives the numbers.
    """

    def __init__(self, app: ASGIApp, measurements: HttpMeasurements):
        self._app = app
        self._measurements = measurements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; record its status and the time until the response starts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                seconds = time.perf_counter() - start
                self._measurements.observe(scope["method"], route, message["status"], seconds)
            await send(message)

        await self._app(scope, receive, record)
