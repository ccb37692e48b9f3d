"""What wraps every request: the measurements."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.measurements import HttpMeasurements


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
