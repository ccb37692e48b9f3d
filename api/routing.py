"""Routes that accept HEAD wherever they accept GET, as RFC 9110 requires of a server."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


class Router(APIRouter):
    """A router whose GET routes also accept HEAD; the server leaves out the body."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route; a GET route also gets a HEAD route, which OpenAPI does not list."""
        super().add_api_route(path, endpoint, **options)
        if options.get("methods") == ["GET"]:
            hidden = {"methods": ["HEAD"], "include_in_schema": False}
            super().add_api_route(path, endpoint, **{**options, **hidden})
