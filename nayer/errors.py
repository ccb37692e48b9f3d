"""What the client raises.

ClientError                 carries a stable code, a message and a hint
  ApiError                  the service answered with a problem document (RFC 9457)
  ServiceUnreachableError   nothing answered at the address, or the connection broke
  DownloadCorruptError      the hash of the bytes is not the one that the service announced
"""

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class InvalidField:
    """One field of a request that the service refuses.

    Args:
        pointer: JSON pointer into the specification, e.g. `/teacher/input_size`; a parameter of the address
            has its name alone.
        code: stable name of the fault, e.g. `missing`.
        detail: the fault in a sentence.
    """

    pointer: str
    code: str
    detail: str


class ClientError(Exception):
    """A request that did not succeed.

    Args:
        code: stable name of the error, for programs.
        message: the fault, for people.
        hint: how to correct it; empty where nothing is known.
    """

    def __init__(self, code: str, message: str, hint: str = ""):
        super().__init__(f"{code}: {message} {hint}".rstrip())
        self.code = code
        self.message = message
        self.hint = hint


class ApiError(ClientError):
    """The service answered with a problem.

    Args:
        status: the HTTP status.
        code: of the problem; `http_<status>` where the answer was no problem document.
        message: one line for each refused field, or else what is wrong with the whole request.
        hint: the service's advice.
        fields: the refused fields; empty where the problem is not one of single fields.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", fields: tuple[InvalidField, ...] = ()
    ):
        super().__init__(code, message, hint)
        self.status = status
        self.fields = fields


class ServiceUnreachableError(ClientError):
    """Nothing answered at an address, or the connection broke.

    Args:
        url: the address.
        reason: what the network reported.
    """

    def __init__(self, url: str, reason: str):
        super().__init__(
            "service_unreachable",
            f"Nothing answers at {url} ({reason}).",
            "Start the service, or give the client another address.",
        )


class DownloadCorruptError(ClientError):
    """The hash of the bytes is not the one that the service announced."""


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the problem that a response reports; a successful response passes.

    Raises:
        ApiError: the status is not 2xx.
    """
    if response.is_success:
        return
    response.read()
    problem = _problem(response)
    fields = tuple(
        InvalidField(*(str(entry.get(key, "")) for key in ("pointer", "code", "detail")))
        for entry in problem.get("errors") or []
    )
    lines = [f"{field.pointer}: {field.detail}" for field in fields]
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {response.status_code}.")
    code = str(problem.get("code") or f"http_{response.status_code}")
    hint = str(problem.get("hint") or "")
    raise ApiError(response.status_code, code, "\n".join(lines) or detail, hint, fields)


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:  # a proxy's page
        return {}
    return document if isinstance(document, dict) else {}
