"""Routes for operators: liveness, readiness, metrics and version."""

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


@probes.get("/healthz", operation_id="getHealth", summary="Check that the process is alive")
async def get_health() -> Health:
    """Does not check other services: a restart of this process is no cure for a failed database."""
    return Health()


@probes.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Check that requests can be served",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "A part is unavailable; `checks` shows which."}},
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
    summary="Read metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=documented(),
)
def get_prometheus_metrics(parts: PartsOf) -> Response:
    """Jobs by status, age of the queues, requests by route."""
    return Response(parts.measurements.exposition(), headers={"Content-Type": PROMETHEUS})


@router.get(
    "/version", operation_id="getVersion", summary="Read the version of the service", responses=documented()
)
def get_version() -> Version:
    """The package's version and, if the image has it, the commit."""
    revision = os.environ.get("NAYER_REVISION") or None  # empty in an image that was built without it
    return Version(name="nayer", version=version("nayer"), revision=revision)


def _checks(parts: Parts) -> dict[str, Check]:
    checks = {name: _check(seconds) for name, seconds in parts.service.check().items()}
    start = time.perf_counter()
    try:
        checks["storage"] = _check(parts.storage.check())
    except StorageFull:  # files can still be read, and deleted to make room
        waited = time.perf_counter() - start
        detail = "full: files can be read and deleted, but not stored"
        checks["storage"] = Check(ok=True, latency_ms=round(1000 * waited, 1), detail=detail)
    except ServiceUnavailable:
        checks["storage"] = _check(None, time.perf_counter() - start)
    return checks


def _check(seconds: float | None, waited: float = 0.0) -> Check:
    return Check(ok=seconds is not None, latency_ms=round(1000 * (waited if seconds is None else seconds), 1))
