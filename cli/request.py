"""What was asked on the command line, as the document of `POST /jobs`.

The service judges the document; here only what has no place in one is refused.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cli.errors import RequestError
from cli.text_files import read_text
from cli.wording import REQUIRED

Document = dict[str, Any]


def read_spec(path: Path) -> Document:
    """Read a whole specification from a JSON file.

    Raises:
        RequestError: `spec_unreadable`.
    """
    try:
        document = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise RequestError(
            "spec_unreadable", f"{path} cannot be read: {error}.", "Give a JSON file."
        ) from error
    if not isinstance(document, dict):
        raise RequestError("spec_unreadable", f"{path} holds no JSON object.", "See `GET /schema`.")
    return document


def numbers(text: str, kind: type[int] | type[float], option: str) -> list[Any]:
    """Read `3,32,32` as numbers.

    Raises:
        RequestError: `option_invalid`.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(
            "option_invalid",
            f"{option} must be numbers with commas between, not {text!r}.",
            f"For example {option} " + ("3,32,32." if kind is int else "0.485,0.456,0.406."),
        ) from error


def pairs(items: Iterable[str], option: str) -> dict[str, str]:
    """Read `key=value` options.

    Raises:
        RequestError: `option_invalid`.
    """
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise RequestError("option_invalid", f"{option} must be key=value, not {item!r}.")
        found[key] = value
    return found


def settings(items: Iterable[str]) -> Document:
    """Read `--set key=value`: a value is JSON where it can be (`30`, `false`), else text."""
    return {key: _json_or_text(value) for key, value in pairs(items, "--set").items()}


def merge(document: Document, changes: Document) -> Document:
    """Lay `changes` over `document`, object by object; `None` changes nothing."""
    merged = dict(document)
    for key, value in changes.items():
        if isinstance(value, dict):
            inner = merge(merged.get(key) or {}, value)
            if inner:
                merged[key] = inner
        elif value is not None:
            merged[key] = value
    return merged


def missing_fields(document: Document) -> list[str]:
    """Return the JSON pointers of what has no default and is not in `document`."""
    missing = []
    for pointer in REQUIRED:
        value: Any = document
        for key in pointer.removeprefix("/").split("/"):
            value = (
                value.get(key) if isinstance(value, dict) else value
            )  # the service judges what is no object
        if value is None:
            missing.append(pointer)
    return missing


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
