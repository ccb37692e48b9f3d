"""Artifacts of a job: list and download."""

from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.dependencies import JobId, Parts, PartsOf
from api.downloads import serve
from api.job_schemas import ArtifactList
from api.problems import documented, shorten
from api.routing import Router
from api.views import JobView
from jobs.errors import ArtifactNotFound, FileMissing
from jobs.kinds import KINDS
from nayer_core.contract.artifacts import MODEL_CARD, STUDENT

router = Router(tags=["artifacts"])

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_HEADERS = {
    "ETag": {"description": "The file's SHA-256, quoted.", "schema": {"type": "string"}},
    "Repr-Digest": {"description": "The file's SHA-256 (RFC 9530).", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "`bytes`.", "schema": {"type": "string"}},
}
_LOCATION = {
    "Location": {
        "description": "A signed URL. A request to it may have `Range`, and must not have the API key.",
        "schema": {"type": "string"},
    },
    **_HEADERS,
}
DOWNLOAD_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": _BYTES, "headers": _HEADERS},
    206: {"description": "The bytes that `Range` requests.", "content": _BYTES, "headers": _HEADERS},
    304: {"description": "The file still has the ETag in `If-None-Match`."},
    307: {"description": "The store itself serves the file at `Location` for a time.", "headers": _LOCATION},
    **documented(
        "job_not_found",
        "artifact_not_found",
        "artifact_not_ready",
        "artifact_expired",
        "range_not_satisfiable",
    ),
}
_RANGE_PARAMETERS = {
    "parameters": [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in (
            ("Range", "One range of bytes, e.g. `bytes=0-1023` or `bytes=-1024`."),
            ("If-Range", "An ETag: the range applies only if the file still has it."),
            ("If-None-Match", "An ETag: the response is 304 if the file still has it."),
        )
    ]
}
Redirect = Annotated[
    bool,
    Query(description="Whether the response may be a redirect to the store, if clients can reach it."),
]


@router.get(
    "/jobs/{job_id}/artifacts",
    operation_id="listArtifacts",
    summary="List the files that a job produced",
    response_model=ArtifactList,
    responses=documented("job_not_found"),
)
def list_artifacts(request: Request, job_id: JobId, parts: PartsOf) -> ArtifactList:
    """Each file with its size, SHA-256, download path and time of expiry."""
    keep_artifacts = parts.settings.keep_artifacts_seconds
    view = JobView(parts.service.get(job_id), None, keep_artifacts, request.scope.get("root_path", ""))
    return ArtifactList(data=view.artifacts())


@router.get(
    "/jobs/{job_id}/artifacts/{name}",
    operation_id="downloadArtifact",
    summary="Download a file",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
    openapi_extra=_RANGE_PARAMETERS,
)
async def download_artifact(
    request: Request,
    job_id: JobId,
    name: Annotated[str, Path(description=f"A name from the list, e.g. `{MODEL_CARD}`.")],
    parts: PartsOf,
    redirect: Redirect = True,
) -> Response:
    """The whole file or a range, so that a client can resume a download. HEAD returns size and digest."""
    if not any(name in kind.artifacts for kind in KINDS.values()):
        await run_in_threadpool(parts.service.get, job_id)
        raise ArtifactNotFound(f"No job has an artifact named {shorten(name)!r}.")
    return await _serve(request, parts, job_id, name, redirect=redirect)


@router.get(
    "/jobs/{job_id}/student",
    operation_id="downloadStudent",
    summary="Download the student",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
    openapi_extra=_RANGE_PARAMETERS,
)
async def download_student(
    request: Request, job_id: JobId, parts: PartsOf, redirect: Redirect = True
) -> Response:
    """A short path for the artifact `student.safetensors`."""
    return await _serve(request, parts, job_id, STUDENT, redirect=redirect)


async def _serve(request: Request, parts: Parts, job_id: str, name: str, *, redirect: bool) -> Response:
    artifact = await run_in_threadpool(parts.service.artifact, job_id, name)
    seconds = parts.settings.signed_url_seconds if redirect else None
    try:
        return await serve(request, artifact, parts.storage, seconds)
    except FileMissing:
        # This raises if the job was deleted or the file has expired; otherwise the store has lost it.
        await run_in_threadpool(parts.service.artifact, job_id, name)
        raise
