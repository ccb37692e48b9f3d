"""From the options of the command line to the document of `POST /jobs`.

The service judges the document. Here only values that cannot become a part of one are refused.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cli.errors import RequestError
from cli.text_files import read_text
from cli.wording import REQUIRED

Document = dict[str, Any]


def build_spec(path: Path | None, *changes: Document, webhook_secret: str | None = None) -> Document:
    """Merge the fields of options over a specification file.

    Args:
        path: the file of --spec; without it the document has the fields of the options alone.
        changes: fields, from the functions below; `None` keeps the value of the file.
        webhook_secret: added where the document has a web hook.

    Raises:
        RequestError: `spec_unreadable`.
    """
    document = _read_spec(path) if path else {}
    for fields in changes:
        document = merge(document, fields)
    if isinstance(document.get("webhook"), dict) and webhook_secret:
        document["webhook"] = {**document["webhook"], "secret": webhook_secret}
    return document


def network_fields(
    student: str | None,
    architecture: str | None,
    input_size: str | None,
    normalization: str | tuple[str | None, str | None],
    accuracy: float | None = None,
    weights: str | None = None,
) -> Document:
    """Describe the student and the teacher.

    Args:
        student: its architecture.
        architecture: of the teacher.
        input_size: channels, height and width with commas between.
        normalization: a name, or mean and std with commas between.
        accuracy: of the teacher.
        weights: which set of the file is wanted.

    Raises:
        RequestError: `option_invalid`.
    """
    values: str | Document
    if isinstance(normalization, str):
        values = normalization
    else:
        mean, std = normalization
        values = {
            "mean": _numbers(mean, float, "--mean") if mean else None,
            "std": _numbers(std, float, "--std") if std else None,
        }
    teacher = {
        "architecture": architecture,
        "input_size": _numbers(input_size, int, "--input-size") if input_size else None,
        "normalization": values,
        "accuracy": accuracy,
        "weights": weights,
    }
    return {"student": {"architecture": student}, "teacher": teacher}


def training_fields(
    preset: str | None,
    settings: Iterable[str] | None,
    seed: int | None = None,
    on_out_of_memory: str | None = None,
    reuse_bank: bool | None = None,
    max_runtime: int | None = None,
) -> Document:
    """Describe the run; a value of `--set key=value` is JSON where it can be (`30`, `false`), else text.

    Raises:
        RequestError: `option_invalid`.
    """
    return {
        "preset": preset,
        "config": {key: _json_or_text(value) for key, value in _pairs(settings or (), "--set").items()},
        "seed": seed,
        "on_out_of_memory": on_out_of_memory,
        "reuse_bank": reuse_bank,
        "max_runtime_seconds": max_runtime,
    }


def encoder_fields(
    name: str | None, embeddings: Path | None, prompt: str | None = None, whiten: bool | None = None
) -> Document:
    """Describe the text encoder; a file of embeddings implies the encoder `file`."""
    implied = "file" if embeddings else None
    return {"text_encoder": {"name": name or implied, "prompt": prompt, "whiten": whiten}}


def notice_fields(metadata: Iterable[str] | None, webhook: str | None) -> Document:
    """Describe the notes on the job, and the address that the service notifies.

    Raises:
        RequestError: `option_invalid`.
    """
    return {
        "metadata": _pairs(metadata or (), "--metadata"),
        "webhook": {"url": webhook} if webhook else None,
    }


def merge(document: Document, changes: Document) -> Document:
    """Merge `changes` into a copy of `document`, object by object; `None` changes nothing."""
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
    """Return the JSON pointers of the fields that have no default and are not in `document`."""
    missing = []
    for pointer in REQUIRED:
        value: Any = document
        for key in pointer.removeprefix("/").split("/"):
            if isinstance(value, dict):  # the service refuses other values
                value = value.get(key)
        if value is None:
            missing.append(pointer)
    return missing


def _read_spec(path: Path) -> Document:
    try:
        document = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise RequestError(
            "spec_unreadable", f"{path} cannot be read: {error}.", "Give a JSON file."
        ) from error
    if not isinstance(document, dict):
        raise RequestError("spec_unreadable", f"{path} contains no JSON object.", "See `GET /schema`.")
    return document


def _numbers(text: str, kind: type[int] | type[float], option: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(
            "option_invalid",
            f"{option} must be numbers with commas between, not {text!r}.",
            f"For example {option} " + ("3,32,32." if kind is int else "0.485,0.456,0.406."),
        ) from error


def _pairs(items: Iterable[str], option: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise RequestError("option_invalid", f"{option} must be key=value, not {item!r}.")
        values[key] = value
    return values


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
