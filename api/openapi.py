"""What FastAPI cannot read off the code: the multipart body, error media types, the description."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import ProblemBody
from api.schemas import SPEC_EXAMPLE
from jobs.values.kinds import JobKind
from nayer_core.contract.spec import JobSpec

DESCRIPTION = """\
Send a trained network and its class names; get a smaller network back. No data needed.

* `POST /jobs` answers `202` with a `Location`; poll that with `If-None-Match`, or follow its `events`.
* Every error is `application/problem+json` (RFC 9457) with a stable `code` and a `hint`.
* A failed job is not an HTTP error: it has the status `failed` and an `error` of its own.
"""
TAGS = [
    {"name": "jobs", "description": "Submit, look, list, pause, resume, cancel, delete."},
    {"name": "events", "description": "What happened, as pages or live; series of numbers."},
    {"name": "artifacts", "description": "The student and what was made beside it."},
    {"name": "web hooks", "description": "What the service sends, and what became of it."},
    {"name": "catalog", "description": "What may be asked, with every default."},
    {"name": "operations", "description": "Is it alive, is it ready, what does it do."},
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
    description = "Each part once, in any order. Files are streamed and never parsed here."
    return {"requestBody": {"required": True, "description": description, "content": content}}


def install(app: FastAPI, *, locked: bool) -> None:
    """Give `app` an `/openapi.json` that also tells what is documented by hand.

    Args:
        app: has all of its routes.
        locked: whether the service has a key; without one no operation asks for it.
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
    # FastAPI documents its own validation answer wherever it is not told of another.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in (*document["paths"].values(), *document["webhooks"].values()):
        for operation in operations.values():
            if not locked:
                operation.pop("security", None)
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    return document
