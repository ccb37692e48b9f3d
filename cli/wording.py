"""Messages of the service in the words of the command line: options in place of fields of a specification."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nayer import ApiError, ClientError, InvalidField, ServiceUnreachableError
from nayer_core.contract import catalog
from nayer_core.contract.normalization import NAMED

# JSON pointer into the spec -> the options that set it.
_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "/labels": "--labels",
        "/teacher": "--input-size, --mean and --std",
        "/teacher/architecture": "--architecture",
        "/teacher/input_size": "--input-size",
        "/teacher/normalization": "--mean and --std",
        "/teacher/normalization/mean": "--mean",
        "/teacher/normalization/std": "--std",
        "/teacher/accuracy": "--accuracy",
        "/teacher/weights": "--weights",
        "/student": "--student",
        "/student/architecture": "--student",
        "/preset": "--preset",
        "/config": "--set",
        "/text_encoder": "--text-encoder",
        "/text_encoder/name": "--text-encoder",
        "/text_encoder/prompt": "--prompt",
        "/text_encoder/whiten": "--whiten",
        "/seed": "--seed",
        "/on_out_of_memory": "--on-out-of-memory",
        "/reuse_bank": "--reuse-bank",
        "/max_runtime_seconds": "--max-runtime",
        "/metadata": "--metadata",
        "/webhook": "--webhook",
        "/webhook/url": "--webhook",
        "/webhook/secret": "NAYER_WEBHOOK_SECRET",
    }
)

# Pointer of a field without a default -> the option that sets it.
REQUIRED: Mapping[str, str] = MappingProxyType(
    {
        "/labels": "--labels FILE: the class names, in the order of the teacher's outputs",
        "/student/architecture": "--student NAME: the network to make, one of `nayer architectures`",
        "/teacher/input_size": "--input-size C,H,W: channels, height and width in pixels, e.g. 3,32,32",
        "/teacher/normalization/mean": "--mean M,M,M: what the training subtracted from images in [0, 1], or"
        f" --normalization NAME: one of {', '.join(NAMED)}",
        "/teacher/normalization/std": "--std S,S,S: what the training divided them by",
    }
)

_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "invalid_spec": "`nayer submit --help` describes each option.",
        "unknown_config_field": "GET /schema describes each field of --set.",
        "unknown_preset": "`nayer presets` lists them.",
        "unknown_text_encoder": f"There are {', '.join(catalog.TEXT_ENCODER_NAMES)}.",
    }
)

# Words of messages for a field -> words for its option; tried in this order.
_PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bteacher\.input_size: \[(\d+), (\d+), (\d+)\]", r"--input-size \1,\2,\3"),
        (r"\bteacher\.architecture: ", "--architecture "),
        (r"\bteacher\.architecture\b", "--architecture"),
        (r"\bteacher\.input_size\b", "--input-size"),
        (r"\bteacher\.normalization and input_size\b", "--mean, --std and --input-size"),
        (r"\bteacher\.normalization\b", "--mean and --std"),
        (r"\bteacher\.accuracy\b", "--accuracy"),
        (r'\bteacher\.weights: "raw"', "--weights raw"),
        (r"\bstudent\.architecture\b", "--student"),
        (r"\btext_encoder\.name\b", "--text-encoder"),
        (r"\btext_encoder '(\w+)'", r"--text-encoder \1"),
        (r"\bset (?=config\.|on_out_of_memory)", "give "),
        (r"\bSet (?=config\.|on_out_of_memory)", "Give "),
        (r"\bconfig\.(\w+) to (\w+)", r"--set \1=\2"),
        (r"\bconfig\.(\w+)", r"--set \1=..."),
        (r'\bon_out_of_memory to "halve"', "--on-out-of-memory halve"),
        (r"\bmax_runtime_seconds\b", "--max-runtime"),
        (r"\bas the part '(\w+)'", r"with --\1"),
        (r"\bGET /(architectures|presets)\b", r"`nayer \1`"),
    )
)


# The call in a line of Python that reads the teacher's file.
_READ_FILE = re.compile(r'((?:load|load_file|open|ZipFile)\()"teacher\.\w+"')


def in_options(text: str) -> str:
    """Name options where `text` names fields of a spec."""
    for pattern, replacement in _PHRASES:
        text = pattern.sub(replacement, text)
    return text


def with_file(text: str, teacher: Path) -> str:
    """Name the teacher's file in a line of Python in `text`."""
    name = json.dumps(str(teacher), ensure_ascii=False)
    return _READ_FILE.sub(lambda match: match[1] + name, text)


def agreement(quality: Mapping[str, Any]) -> str:
    """Say how far a student agrees with its teacher, from the `quality` of a job: number, interval, basis."""
    estimate = quality["estimated_agreement"]
    numbers = ""
    if estimate["value"] is not None:
        numbers = f" {estimate['value']:.0%} ({estimate['low']:.0%} to {estimate['high']:.0%}),"
    return f"agreement with the teacher:{numbers} {estimate['basis']}"


def option(pointer: str) -> str:
    """Name the option that sets the field at a JSON pointer; other fields are in the file of --spec."""
    for parent, name in (("/config/", "--set"), ("/metadata/", "--metadata")):
        if pointer.startswith(parent):
            return f"{name} {pointer.removeprefix(parent)}=..."
    if pointer in _OPTIONS:
        return _OPTIONS[pointer]
    parent, _, entry = pointer.rpartition("/")
    if parent in _OPTIONS and entry.isdigit():
        return f"{_OPTIONS[parent]}, entry {entry}"
    if pointer.startswith("/"):
        return f"{pointer} in the file of --spec"
    return pointer or "the request"


def explain(error: ClientError) -> tuple[str, str]:
    """Return message and hint of an error, with options in place of fields.

    The message of a problem has a line for each refused option, or else describes the whole.
    """
    if isinstance(error, ServiceUnreachableError):
        return error.message, "Start it with `nayer serve`, or name another address with --url or NAYER_URL."
    if not isinstance(error, ApiError):
        return error.message, error.hint
    message = "\n".join(map(_line, error.fields)) or in_options(error.message)
    return message, hint(error.code, error.hint, message)


def _line(field: InvalidField) -> str:
    fault = "is missing" if field.code == "missing" else in_options(field.detail)
    return f"{option(field.pointer)}: {fault}"


def hint(code: str, hint_of_service: str, message: str) -> str:
    """Return the advice of the command line for a problem of the service.

    Args:
        code: of the problem.
        hint_of_service: the advice of the service.
        message: of the problem; it may contain the unknown name.
    """
    if code != "unknown_architecture":
        return _HINTS.get(code) or in_options(hint_of_service)
    family = re.search(r"named '(?:\w+/)?([A-Za-z]+)", message)
    example = f", e.g. `nayer architectures {family[1].lower()}`" if family else ""
    return f"`nayer architectures QUERY` lists the names that contain QUERY{example}."


def missing(pointers: Iterable[str]) -> tuple[str, str]:
    """Return message and hint for a request with missing fields.

    Args:
        pointers: of `REQUIRED`, in its order.
    """
    lines = [REQUIRED[pointer] for pointer in pointers]
    options = [line.partition(" ")[0] for line in lines]
    enumeration = " and ".join(filter(None, (", ".join(options[:-1]), options[-1])))
    return "\n".join(
        [f"The request lacks {enumeration}.", *lines]
    ), "Give options, or the fields in the file of --spec."
