"""Dependencies of the routes: the parts that `create_app` assembled, and checks of each request."""

import secrets
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.event_feed import EventFeed
from api.measurements import Measurements
from api.problems import Problem
from api.schemas import EXAMPLE_ID
from api.uploads import max_upload_bytes
from jobs.files.store import Storage
from jobs.kinds import KINDS
from jobs.service.for_clients import ClientJobs
from jobs.settings import Settings

MAX_OTHER_BYTES = 64 * 1024  # no route but the uploads reads a body

bearer = HTTPBearer(auto_error=False, description="The value of NAYER_API_KEY, where the service has one.")


@dataclass(frozen=True)
class Parts:
    """Everything a request may need; one per application."""

    settings: Settings
    service: ClientJobs
    storage: Storage
    feed: EventFeed
    measurements: Measurements


def parts(request: Request) -> Parts:
    """The parts of the application that serves `request`."""
    return cast(Parts, request.app.state.parts)


def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """Accept a request with the service's key; accept every request if the service has no key.

    Raises:
        Problem: `unauthorized`.
    """
    expected = parts(request).settings.api_key
    if expected is None:
        return
    token = credentials.credentials if credentials else ""
    # Header values are decoded as Latin-1; encoding them restores the bytes that the client sent.
    if not secrets.compare_digest(token.encode("latin-1", "replace"), expected.get_secret_value().encode()):
        detail = "The Bearer token is not the key." if credentials else "There is no Bearer token."
        raise Problem("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def check_declared_length(request: Request) -> None:
    """Refuse a body by its Content-Length, before a byte of it is read.

    It is a dependency, so that errors of path, method and key come first. `api.uploads` counts the
    bytes of a body without a length; no other route reads a body.

    Raises:
        Problem: `payload_too_large`.
    """
    length = request.headers.get("content-length", "0")[:20]
    declared = int(length) if length.isdigit() else 0
    path = request.scope["route"].path
    kind = next((kind for kind in KINDS.values() if request.method == "POST" and kind.path == path), None)
    limit = max_upload_bytes(kind, parts(request).settings) if kind else MAX_OTHER_BYTES
    if declared > limit:
        raise Problem("payload_too_large", f"The body has {declared:,} bytes; the limit is {limit:,}.")


PartsOf = Annotated[Parts, Depends(parts)]
JobId = Annotated[str, Path(description="The `id` of a job.", examples=[EXAMPLE_ID])]
