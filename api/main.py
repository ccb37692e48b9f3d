"""Assembles the HTTP service; `python -m api` serves it."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator
from importlib.metadata import version
from types import FrameType

from fastapi import Depends, FastAPI

from api import errors, openapi
from api.dependencies import Parts, authenticate, check_declared_length
from api.event_feed import EventFeed
from api.measurements import Measurements
from api.middleware import Measured
from api.routes import artifacts, catalog, deliveries, events, health, jobs
from jobs.files.store import Storage
from jobs.service.for_clients import ClientJobs
from jobs.service.resources import Resources
from jobs.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application and its parts. It does not connect to anything yet.

    Args:
        settings: None reads them from the environment (`NAYER_*`).
    """
    settings = settings or Settings()
    resources = Resources.open(settings)
    service = ClientJobs(resources)
    storage = Storage.open(settings.storage_url, public_endpoint=settings.storage_public_url)
    parts = Parts(
        settings=settings,
        service=service,
        storage=storage,
        feed=EventFeed(service),
        measurements=Measurements(service, storage),
    )
    app = FastAPI(
        title="nayer",
        summary="Data-free distillation as a service",
        description=openapi.DESCRIPTION,
        version=version("nayer"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=openapi.TAGS,
        webhooks=deliveries.messages,
        # The documentation pages load scripts from a CDN, which a closed network cannot reach.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a client that posts gigabytes to /jobs/ must get the error at once
        lifespan=_lifespan,
    )
    app.state.parts, app.state.close = parts, resources.close
    _install_routes(app)
    errors.install(app)
    openapi.install(app, locked=settings.api_key is not None)
    app.add_middleware(Measured, measurements=parts.measurements.http)
    # It logs each malformed body with some of its bytes; the response reports the error to the client.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return app


def _install_routes(app: FastAPI) -> None:
    app.include_router(health.probes)
    modules = (jobs, events, artifacts, deliveries, catalog, health)
    for router in (jobs.submissions(), *(module.router for module in modules)):
        app.include_router(router, dependencies=[Depends(authenticate), Depends(check_declared_length)])


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    if parts.settings.api_key is None:
        log.warning("NAYER_API_KEY is not set: anyone who can reach this address can use the service")
    async with parts.feed.running():
        _close_at_signal(parts.feed)
        yield
    app.state.close()


def _close_at_signal(feed: EventFeed) -> None:
    # The server waits for open responses before it notifies the application of the stop, but a live
    # stream ends only after that notice. So this handler runs before the server's handler.
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        following = signal.getsignal(number)

        def close(received: int, frame: FrameType | None, following: object = following) -> None:
            loop.call_soon_threadsafe(feed.close)
            if callable(following):
                following(received, frame)

        signal.signal(number, close)
