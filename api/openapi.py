"""The parts of OpenAPI that FastAPI cannot derive: multipart body, error media types, description."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import ProblemBody
from api.schemas import SPEC_EXAMPLE
from jobs.values.kinds import JobKind
from nayer_core.contract.spec import JobSpec

DESCRIPTION = """\
Send a trained network and its class names; get a smaller network back. No data needed.

* `POST /jobs` returns `202` with a `Location`. Poll it with `If-None-Match`, or follow the job's `events`.
* Every error is `application/problem+json` (RFC 9457) with a stable `code` and a `hint`.
* A failed job is not an HTTP error: the job has the status `failed` and its own `error`.
"""
TAGS = [
    {"name": "jobs", "description": "Submit, read, list, pause, resume, cancel, delete."},
    {"name": "events", "description": "A job's log, as pages or as a live stream, and its metrics."},
    {"name": "artifacts", "description": "The student and the other files of a job."},
    {"name": "web hooks", "description": "The messages to a job's web hook, and their status."},
    {"name": "catalog", "description": "Architectures, presets and the schema of a spec."},
    {"name": "operations", "description": "Liveness, readiness, metrics and version."},
]

_FILE = {"type": "string", "format": "binary"}


def multipart_body(kind: JobKind) -> dict[str, Any]:
    """Describe the body of a request for this kind of job, for `openapi_extra`."""
    files = {name: {**_FILE, "description": part.description} for name, part in kind.uploads.items()}
    required = [name for name, part in kind.uploads.items() if part.is_required]
    schema = {
        "type": "object",
        "required": [*required, "spec"],
        "additionalProperties": False,
        "properties": {"spec": {"$ref": "#/components/schemas/JobSpec"}, **files},
    }
    encoding = {
        "teacher": {"contentType": "application/octet-stream"},
        "spec": {"contentType": "application/json"},
    }
    examples = {"cifar10": {"value": {"teacher": "<bytes>", "spec": SPEC_EXAMPLE}}}
    content = {"multipart/form-data": {"schema": schema, "encoding": encoding, "examples": examples}}
    description = "Send each part once, in any order. The API streams the files and does not parse them."
    return {"requestBody": {"required": True, "description": description, "content": content}}


def install(app: FastAPI, *, locked: bool) -> None:
    """Give `app` an `/openapi.json` that includes the parts written by hand.

    Args:
        app: with all of its routes.
        locked: whether the service has a key; without a key no operation requires one.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, locked)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way


def _document(app: FastAPI, locked: bool) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        webhooks=app.webhooks.routes,
        tags=app.openapi_tags,
        license_info=app.license_info,
    )
    schemas = document["components"]["schemas"]
    for model in (JobSpec, ProblemBody):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    schemas["JobSpec"]["examples"] = [SPEC_EXAMPLE]
    # FastAPI documents its own validation response for each route that does not declare another.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in (*document["paths"].values(), *document["webhooks"].values()):
        for operation in operations.values():
            if not locked:
                operation.pop("security", None)
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    return document
