"""Jobs: create, list, read, pause, resume, cancel, delete."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.dependencies import JobId, Parts, PartsOf
from api.downloads import matches
from api.job_schemas import JobBody, JobPage
from api.openapi import multipart_body
from api.problems import Problem, documented
from api.routing import Router
from api.uploads import Upload, discard, receive
from api.views import JobView, SummaryView
from jobs.errors import JobNotFound, ServiceUnavailable
from jobs.kinds import KINDS
from jobs.states import JobStatus
from jobs.values.jobs import Job, NewJob
from jobs.values.kinds import JobKind

router = Router(tags=["jobs"])

SUBMISSION_PROBLEMS = documented(
    "malformed_body", "truncated_body", "invalid_json", "invalid_idempotency_key", "upload_stalled",
    "payload_too_large", "unsupported_media_type", "compressed_body",
    "missing_part", "unknown_part", "duplicate_part", "empty_file",
    "invalid_spec", "unknown_architecture", "unknown_method", "unknown_preset", "unknown_text_encoder",
    "unknown_config_field", "webhook_address_refused", "idempotency_key_reused",
    "storage_full",
)  # fmt: skip
ACCEPTED_HEADERS = {
    "Location": {"description": "The path of the job.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until the next poll is useful.", "schema": {"type": "integer"}},
    "Idempotent-Replayed": {
        "description": "`true` if an earlier request with this key created the job.",
        "schema": {"type": "string"},
    },
}
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="1 to 255 printable ASCII characters; equal requests with one key create one job.",
    ),
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="An ETag of an earlier response.")
]


def submissions() -> Router:
    """Make the routes that create jobs: one for each kind of job."""
    routes = Router(tags=["jobs"])
    for kind in KINDS.values():
        routes.add_api_route(
            kind.path,
            _submission(kind),
            methods=["POST"],
            status_code=202,
            operation_id=kind.operation_id,
            summary=kind.summary,
            description=kind.description,
            response_model=JobBody,
            responses={202: {"headers": ACCEPTED_HEADERS}, **SUBMISSION_PROBLEMS},
            openapi_extra=multipart_body(kind),
        )
    return routes


def _submission(kind: JobKind) -> Callable[..., Awaitable[Response]]:
    async def submit(request: Request, parts: PartsOf, idempotency_key: IdempotencyKey = None) -> Response:
        return await _submit(request, parts, kind, idempotency_key)

    return submit


@router.get(
    "/jobs",
    operation_id="listJobs",
    summary="List jobs, newest first",
    response_model=JobPage,
    responses=documented("invalid_parameter"),
)
def list_jobs(
    request: Request,
    response: Response,
    parts: PartsOf,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
) -> JobPage:
    """A page of jobs without their large documents; `next` and the `Link` header lead to the next page."""
    try:
        page = parts.service.list_jobs(status=status, limit=limit, after=after)
    except JobNotFound as error:
        raise Problem("invalid_parameter", f"after: {error.message}") from error
    if page.has_more and page.next:
        url = request.url.include_query_params(after=page.next)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    positions = parts.service.queue_positions(page.jobs)
    keep_artifacts, root = parts.settings.keep_artifacts_seconds, request.scope.get("root_path", "")
    views = [SummaryView(job, positions.get(job.id), keep_artifacts, root) for job in page.jobs]
    return JobPage(data=[view.summary() for view in views], has_more=page.has_more, next=page.next)


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=JobBody,
    responses={
        304: {"description": "Nothing has changed since `If-None-Match`."},
        **documented("job_not_found"),
    },
)
def get_job(request: Request, job_id: JobId, parts: PartsOf, if_none_match: IfNoneMatch = None) -> Response:
    """The job's current state; the status is 200 even if the job failed. Poll with `If-None-Match`."""
    view = _view_of(request, parts, parts.service.get(job_id))
    if matches(if_none_match, view.headers()["ETag"]):
        return Response(status_code=304, headers=view.headers())
    return _answer(view)


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    response_model=JobBody,
    responses=documented("job_not_found"),
)
def cancel_job(request: Request, job_id: JobId, parts: PartsOf) -> Response:
    """The job ends within 5 seconds. A repeated request changes nothing; an ended job stays as it is."""
    return _answer(_view_of(request, parts, parts.service.cancel(job_id)))


@router.post(
    "/jobs/{job_id}/pause",
    operation_id="pauseJob",
    summary="Pause a job, keeping its state",
    response_model=JobBody,
    responses=documented("job_not_found", "job_not_pausable"),
)
def pause_job(request: Request, job_id: JobId, parts: PartsOf) -> Response:
    """A queued job is paused at once. A running job saves its state first; `pause_requested` is true until
    then. A repeated request changes nothing. Paused time does not count towards `max_runtime_seconds`.
    """
    return _answer(_view_of(request, parts, parts.service.pause(job_id)))


@router.post(
    "/jobs/{job_id}/resume",
    operation_id="resumeJob",
    summary="Resume a paused job",
    response_model=JobBody,
    responses=documented("job_not_found", "job_not_paused"),
)
def resume_job(request: Request, job_id: JobId, parts: PartsOf) -> Response:
    """The job waits at its old place in the queue and continues from its last step. A pause that is still
    in progress is cancelled. A repeated request changes nothing.
    """
    return _answer(_view_of(request, parts, parts.service.resume(job_id)))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    operation_id="deleteJob",
    summary="Delete a job that has ended, and its files",
    responses=documented("job_not_found", "job_not_terminal"),
)
def delete_job(job_id: JobId, parts: PartsOf) -> None:
    """A file that several jobs share stays until the last of these jobs is deleted."""
    for key in parts.service.delete(job_id):
        with contextlib.suppress(ServiceUnavailable):  # the sweep of upkeep removes files that remain
            parts.storage.delete(key)


async def _submit(request: Request, parts: Parts, kind: JobKind, key: str | None) -> Response:
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise Problem(
            "invalid_idempotency_key", f"The key has {len(key)} characters, or some are not printable ASCII."
        )
    upload = await receive(request, kind, parts.storage, parts.settings)
    job, replayed = await _create(parts, upload, key)
    view = await run_in_threadpool(_view_of, request, parts, job)
    answer = _answer(view, 202)
    answer.headers["Location"] = view.path
    if replayed:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


async def _create(parts: Parts, upload: Upload, key: str | None) -> tuple[Job, bool]:
    new = NewJob(
        kind=upload.kind,
        spec=upload.spec,
        uploads=upload.files,
        idempotency_key=key,
        request_hash=upload.fingerprint() if key is not None else None,
    )
    try:
        job, replayed = await run_in_threadpool(parts.service.submit, new)
    except ServiceUnavailable:
        raise  # the commit may have succeeded, so the files must stay; the sweep removes unused ones
    except Exception:
        await discard(parts.storage, upload.files.values())
        raise
    if replayed:
        await discard(parts.storage, upload.files.values())
    return job, replayed


def _view_of(request: Request, parts: Parts, job: Job) -> JobView:
    position = parts.service.queue_positions([job]).get(job.id)
    keep_artifacts = parts.settings.keep_artifacts_seconds
    return JobView(job, position, keep_artifacts, request.scope.get("root_path", ""))


def _answer(view: JobView, status: int = 200) -> JSONResponse:
    return JSONResponse(view.body().model_dump(mode="json"), status, view.headers())
