"""What can go wrong between this program and the service, told so that it can be mended.

ClientError                 carries a stable code, a message and a hint
  ApiError                  the service answered with a problem document (RFC 9457)
  ServiceUnreachableError   nothing answered at this address
  DownloadCorruptError      the bytes do not hash to what the service announced
  RequestError              what was asked on the command line cannot be a request
  ServeError                the service cannot be started here
"""

import httpx

from cli import wording


class ClientError(Exception):
    """Something between this program and the student went wrong, told so that it can be mended."""

    def __init__(self, code: str, message: str, hint: str = ""):
        super().__init__(f"{code}: {message} {hint}".rstrip())
        self.code = code
        self.message = message
        self.hint = hint


class ApiError(ClientError):
    """The service answered with a problem; `status` is the HTTP status."""

    def __init__(self, status: int, code: str, message: str, hint: str = ""):
        super().__init__(code, message, hint)
        self.status = status


class ServiceUnreachableError(ClientError):
    """Nothing answered at this address."""

    def __init__(self, url: str, reason: str):
        super().__init__(
            "service_unreachable",
            f"Nothing answers at {url} ({reason}).",
            "Start it with `nayer serve`, or name another address with --url or NAYER_URL.",
        )


class DownloadCorruptError(ClientError):
    """The bytes do not hash to what the service announced."""


class RequestError(ClientError):
    """What was asked on the command line cannot be a request."""


class ServeError(ClientError):
    """The service cannot be started here."""


def raise_for_problem(response: httpx.Response) -> None:
    """Raise what the service says is wrong; a good answer passes.

    Raises:
        ApiError: with the problem's code; its message has a line for each option that is wrong, or else says
            what is wrong with the whole.
    """
    if response.is_success:
        return
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    code = str(problem.get("code") or f"http_{response.status_code}")
    places = [
        wording.place(*(str(error.get(part, "")) for part in ("pointer", "code", "detail")))
        for error in problem.get("errors") or []
    ]
    whole = str(problem.get("detail") or problem.get("title") or f"HTTP {response.status_code}.")
    message = "\n".join(places) or wording.in_options(whole)
    hint = wording.hint(code, str(problem.get("hint") or ""), message)
    raise ApiError(response.status_code, code, message, hint)
