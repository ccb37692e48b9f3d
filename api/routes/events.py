"""Events of a job: its ordered log, as pages or as a live stream, and its metrics."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.dependencies import JobId, Parts, PartsOf
from api.problems import documented
from api.routing import Router
from api.schemas import EventPage, MetricPointBody, MetricsBody
from api.views import event_body

router = Router(tags=["events"])

EVENT_STREAM = "text/event-stream"
MAX_SEQ = 2**63 - 1  # a PostgreSQL bigint
EVENTS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, or a live stream for `Accept: text/event-stream`.",
        "content": {
            EVENT_STREAM: {
                "schema": {"type": "string"},
                "example": 'id: 3\nevent: status\ndata: {"seq":3,"data":{"status":"queued"},...}\n\n',
            }
        },
    },
    204: {"description": "The client of a stream has the job's last event already: do not reconnect."},
    **documented("job_not_found", "invalid_parameter"),
}


@router.get(
    "/jobs/{job_id}/events",
    operation_id="listEvents",
    summary="Read or follow a job's log",
    response_model=EventPage,
    responses=EVENTS_RESPONSES,
)
async def list_events(
    request: Request,
    job_id: JobId,
    parts: PartsOf,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Only events with a higher `seq`.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Largest number of events.")] = 200,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The last `id` before a stream broke off.")
    ] = None,
) -> Response | EventPage:
    """Events in order. A `text/event-stream` has the log after `Last-Event-ID` (or `after`), then new
    events as they come, until the job has ended. Comments keep the connection open.
    """
    if EVENT_STREAM in request.headers.get("accept", ""):
        return await _stream(request.method, parts, job_id, _resume_from(last_event_id, after))
    return await run_in_threadpool(_page, parts, job_id, after, limit)


@router.get(
    "/jobs/{job_id}/metrics",
    operation_id="getMetrics",
    summary="Read a job's metrics",
    response_model=MetricsBody,
    responses=documented("job_not_found", "invalid_parameter"),
)
def get_metrics(
    job_id: JobId,
    parts: PartsOf,
    name: Annotated[list[str] | None, Query(description="Only these series; repeatable.")] = None,
    max_points: Annotated[int, Query(ge=2, le=2000, description="Longer series are thinned out.")] = 2000,
) -> MetricsBody:
    """Series by name. The step counts updates of generator and student together."""
    series = parts.service.metrics(job_id, names=name, max_points=max_points)
    return MetricsBody(
        series={
            series_name: [MetricPointBody.model_validate(asdict(point)) for point in points]
            for series_name, points in series.items()
        }
    )


def _page(parts: Parts, job_id: str, after: int, limit: int) -> EventPage:
    events = parts.service.events(job_id, after=after, limit=limit + 1)
    page = events[:limit]
    return EventPage(
        data=[event_body(event) for event in page],
        has_more=len(events) > limit,
        next=page[-1].seq if page else after,
    )


async def _stream(method: str, parts: Parts, job_id: str, after: int) -> Response:
    job = await run_in_threadpool(parts.service.get, job_id)
    if job.is_terminal and not await run_in_threadpool(parts.service.events, job_id, after, 1):
        return Response(status_code=204)  # by the HTML standard this stops an EventSource
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    # The stream of a HEAD request would run until the job ends, without a reader.
    content = iter(()) if method == "HEAD" else parts.feed.stream(job_id, after)
    return StreamingResponse(content, headers=headers, media_type=EVENT_STREAM)


def _resume_from(last_event_id: str | None, after: int) -> int:
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= 18:
        return max(after, int(last_event_id))
    return after
