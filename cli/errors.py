"""What can go wrong between this program and the service, told so that it can be mended.

ClientError                 carries a stable code, a message and a hint
  ApiError                  the service answered with a problem document (RFC 9457)
  ServiceUnreachableError   nothing answered at this address
  DownloadCorruptError      the bytes do not hash to what the service announced
  RequestError              what was asked on the command line cannot be a request
  ServeError                the service cannot be started here
"""

import httpx


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
        ApiError: with the problem's code, and a line for each place in the request that is wrong.
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
    message = str(problem.get("detail") or problem.get("title") or f"HTTP {response.status_code}.")
    places = [
        f"{error.get('pointer', '')}: {error.get('detail', '')}" for error in problem.get("errors") or []
    ]
    raise ApiError(
        response.status_code,
        str(problem.get("code") or f"http_{response.status_code}"),
        "\n".join([message, *places]),
        str(problem.get("hint") or ""),
    )
