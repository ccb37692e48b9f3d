"""For whoever operates the service: is it alive, is it ready, what does it do, what is it."""

import os
import time
from importlib.metadata import version

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

from api.dependencies import Parts, PartsOf
from api.problems import RETRY_SECONDS, documented
from api.routing import Router
from api.schemas import Check, Health, Readiness, Version
from jobs.errors import ServiceUnavailable, StorageFull

probes = Router(tags=["operations"])
router = Router(tags=["operations"])

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@probes.get("/healthz", operation_id="getHealth", summary="Is the process alive")
async def get_health() -> Health:
    """Says nothing about what the process needs: a database that is away is no reason to restart it."""
    return Health()


@probes.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can requests be served",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "A part is away; `checks` says which."}},
)
def get_readiness(parts: PartsOf) -> Response:
    """Database, migrations, broker and storage, each with its latency."""
    checks = _checks(parts)
    readiness = Readiness(ready=all(check.ok for check in checks.values()), checks=checks)
    headers = {"Cache-Control": "no-store"}
    if not readiness.ready:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return JSONResponse(readiness.model_dump(mode="json"), 200 if readiness.ready else 503, headers=headers)


@router.get(
    "/metrics",
    operation_id="getPrometheusMetrics",
    summary="Numbers for Prometheus",
    response_class=PlainTextResponse,
    responses=documented(),
)
def get_prometheus_metrics(parts: PartsOf) -> Response:
    """Jobs by status, age of the queues, requests by route."""
    return Response(parts.measurements.exposition(), headers={"Content-Type": PROMETHEUS})


@router.get("/version", operation_id="getVersion", summary="What runs here", responses=documented())
def get_version() -> Version:
    """The package's version and, where the image was built with it, the commit."""
    revision = os.environ.get("NAYER_REVISION") or None  # empty in an image that was built without it
    return Version(name="nayer", version=version("nayer"), revision=revision)


def _checks(parts: Parts) -> dict[str, Check]:
    found = {name: _check(seconds) for name, seconds in parts.service.check().items()}
    started = time.perf_counter()
    try:
        found["storage"] = _check(parts.storage.check())
    except StorageFull:  # what is there can be fetched, and deleted, which is the cure
        waited = time.perf_counter() - started
        detail = "full: files can be read and deleted, none can be stored"
        found["storage"] = Check(ok=True, latency_ms=round(1000 * waited, 1), detail=detail)
    except ServiceUnavailable:
        found["storage"] = _check(None, time.perf_counter() - started)
    return found


def _check(seconds: float | None, waited: float = 0.0) -> Check:
    return Check(ok=seconds is not None, latency_ms=round(1000 * (waited if seconds is None else seconds), 1))
