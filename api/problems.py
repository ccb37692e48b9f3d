"""Error responses of the API: problem documents of RFC 9457 with stable codes.

Clients branch on `code`; people read `detail` and `hint`. No text of a library gets into them.
A failed job is not an HTTP error: its response has status 200 and the job's own `error`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

PROBLEM_MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_CHARS = 500  # details name the client's own values, which may be megabytes long
RETRY_SECONDS = 5  # how long a client waits before it repeats a request to an unavailable service
MAX_ERRORS = 50  # a spec may have 100,000 wrong labels, and the first ones are enough


@dataclass(frozen=True)
class Kind:
    """Status, title and hint of all problems with one code."""

    status: int
    title: str
    hint: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed_request": Kind(
            400, "The request is not valid HTTP/1.1", "Use an HTTP library to build the request."
        ),
        "malformed_body": Kind(
            400, "The body is not well-formed multipart/form-data", "Use an HTTP library to build the body."
        ),
        "truncated_body": Kind(
            400, "The body ended before its last boundary", "Send the request again; nothing was kept."
        ),
        "invalid_json": Kind(
            400,
            "The spec is not a JSON document",
            "Send one JSON object in UTF-8, without a byte order mark, NaN or repeated keys.",
        ),
        "invalid_idempotency_key": Kind(
            400,
            "The Idempotency-Key cannot be used",
            "Send 1 to 255 printable ASCII characters, e.g. a UUID.",
        ),
        "unauthorized": Kind(
            401,
            "The API key is missing or wrong",
            "Send 'Authorization: Bearer <key>' with the key of this service.",
        ),
        "not_found": Kind(404, "There is no such path", "The paths are listed in /openapi.json."),
        "job_not_found": Kind(
            404, "There is no such job", "Jobs are listed at /jobs; a deleted job is gone."
        ),
        "delivery_not_found": Kind(
            404, "This job has no such delivery", "The deliveries are listed at /jobs/{id}/deliveries."
        ),
        "artifact_not_found": Kind(
            404, "This job has no such artifact", "The artifacts are listed at /jobs/{id}/artifacts."
        ),
        "method_not_allowed": Kind(
            405, "This path does not allow this method", "The Allow header lists the allowed methods."
        ),
        "headers_stalled": Kind(
            408, "The headers arrived too slowly", "Send the request again, on a faster connection."
        ),
        "upload_stalled": Kind(
            408,
            "The body stopped, or arrived too slowly",
            "Send the request again, on a faster connection; nothing was kept.",
        ),
        "job_not_terminal": Kind(
            409, "The job has not ended", "Cancel it first, or wait until is_terminal is true."
        ),
        "job_not_pausable": Kind(
            409, "The job cannot be paused now", "Only a job that is queued or running can be paused."
        ),
        "job_not_paused": Kind(409, "The job is not paused", "Only a paused job can be resumed."),
        "artifact_not_ready": Kind(
            409, "The artifact does not exist yet", "Wait until is_terminal is true, then try again."
        ),
        "artifact_expired": Kind(
            410, "The artifact has expired", "Submit the job again; expires_at is the time of expiry."
        ),
        "payload_too_large": Kind(
            413,
            "The request has more bytes than this service accepts",
            "Send a smaller file, or ask the operator to raise the limit.",
        ),
        "unsupported_media_type": Kind(
            415, "The body has the wrong type", "Send multipart/form-data with a boundary."
        ),
        "compressed_body": Kind(
            415,
            "The body has a Content-Encoding",
            "Send the body as it is, without Content-Encoding.",
        ),
        "range_not_satisfiable": Kind(
            416, "The range is outside the file", "Content-Range has the length of the file."
        ),
        "invalid_parameter": Kind(
            422, "A parameter is out of range", "errors[] names the parameter and its limit."
        ),
        "missing_part": Kind(
            422, "A part is missing", "Send the parts 'teacher' (a file) and 'spec' (JSON)."
        ),
        "unknown_part": Kind(
            422, "A part has an unknown name", "The parts are teacher, spec, evaluation and embeddings."
        ),
        "duplicate_part": Kind(422, "A part was sent twice", "Send each part once."),
        "empty_file": Kind(
            422, "A file is empty", "Send the file's bytes, or leave the part out if it is optional."
        ),
        "invalid_spec": Kind(
            422, "The spec is invalid", "errors[] names each wrong field; the schema is at /schema."
        ),
        "unknown_architecture": Kind(
            422, "There is no such architecture", "The names are listed at /architectures."
        ),
        "unknown_method": Kind(422, "There is no such method", "The names are listed at /schema."),
        "unknown_preset": Kind(422, "There is no such preset", "The names are listed at /presets."),
        "unknown_text_encoder": Kind(
            422, "There is no such text encoder", "The names are listed at /schema."
        ),
        "unknown_config_field": Kind(
            422, "There is no such field of config", "The fields of DistillConfig are listed at /schema."
        ),
        "webhook_address_refused": Kind(
            422,
            "The address of the web hook is not public",
            "Use a receiver with a public address; the operator can allow others.",
        ),
        "idempotency_key_reused": Kind(
            422, "This Idempotency-Key belongs to another request", "Use a new key for a new request."
        ),
        "headers_too_large": Kind(
            431,
            "The headers have too many bytes",
            "Send fewer or shorter headers and cookies, and a shorter URL.",
        ),
        "internal_error": Kind(
            500,
            "The service has a bug",
            "The request need not change; the operator finds the cause in the log.",
        ),
        "storage_full": Kind(
            503, "The service has no room for files", "Reading still works; send the request again later."
        ),
        "too_many_connections": Kind(
            503,
            "The service has no connection left",
            "Send the same request again after Retry-After seconds.",
        ),
        "service_unavailable": Kind(
            503,
            "A part of the service is unavailable",
            "Send the same request again after Retry-After seconds.",
        ),
    }
)


class FieldError(BaseModel):
    """One error, and its place."""

    pointer: str = Field(description="JSON pointer into the spec, or the name of a parameter.")
    code: str
    detail: str


class ProblemBody(BaseModel):
    """An `application/problem+json` document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:nayer:problem:unknown_architecture",
                    "title": "There is no such architecture",
                    "status": 422,
                    "detail": "there is no architecture named 'wrn16_1'; the nearest are wrn_16_1, wrn_16_2",
                    "instance": "/jobs",
                    "code": "unknown_architecture",
                    "hint": "The names are listed at /architectures.",
                    "errors": [
                        {
                            "pointer": "/student/architecture",
                            "code": "unknown_architecture",
                            "detail": "there is no architecture named 'wrn16_1'; ...",
                        }
                    ],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str
    errors: list[FieldError] = []


class Problem(Exception):
    """Ends a request with the error response for `code`.

    Args:
        code: one of `KINDS`.
        detail: what is wrong, with the value and the limit.
        errors: the single errors, if there can be several.
        headers: further headers of the response, such as `Retry-After`.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = shorten(detail)
        self.errors = list(errors[:MAX_ERRORS])
        self.headers = dict(headers or {})

    def response(self, instance: str) -> JSONResponse:
        """The response to the request for `instance`, a path."""
        kind = KINDS[self.code]
        body = ProblemBody(
            type=f"urn:nayer:problem:{self.code}",
            title=kind.title,
            status=kind.status,
            detail=self.detail,
            instance=instance,
            code=self.code,
            hint=kind.hint,
            errors=self.errors,
        )
        headers = {"Retry-After": str(RETRY_SECONDS)} if kind.status == 503 else {}
        return JSONResponse(
            body.model_dump(),
            kind.status,
            headers={**headers, **self.headers},
            media_type=PROBLEM_MEDIA_TYPE,
        )


def shorten(text: str) -> str:
    """Cut `text` to `MAX_DETAIL_CHARS`; replace unpaired surrogates, which UTF-8 cannot encode."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses for `codes`, and for the codes that every route may return."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, "unauthorized", "internal_error", "service_unavailable"):
        kind = KINDS[code]
        entry = responses.setdefault(
            kind.status,
            {
                "description": "",
                "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
            },
        )
        entry["description"] += f"{'; ' if entry['description'] else ''}`{code}`: {kind.title}"
    return responses
