"""Turns every failure of a request into a problem document; no other error leaves the API."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api.problems import KINDS, MAX_ERRORS, Problem
from api.wording import field_error
from jobs.errors import JobsError

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Make `app` answer every failure with `application/problem+json`."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(JobsError, _jobs_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _bug)


def spec_problem(error: ValidationError) -> Problem:
    """Describe an invalid spec; if its first error is an unknown name, the problem has that error's code."""
    items = error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
    errors = [field_error(item) for item in items]
    first = errors[0]
    code = first.code if first.code in KINDS else "invalid_spec"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return Problem(code, f"{first.pointer or 'spec'}: {first.detail}{more}", errors=errors)


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - registered for this type
    return error.response(request.url.path)


def _jobs_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, JobsError)  # noqa: S101 - registered for this type
    if error.code not in KINDS:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _bug(request, error)
    return jobs_problem(error).response(request.url.path)


def jobs_problem(error: JobsError) -> Problem:
    """The problem that a client gets for `error`."""
    return Problem(error.code, error.message)


def _invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    items = [field_error(item) for item in error.errors()[:MAX_ERRORS]]
    errors = [item.model_copy(update={"pointer": item.pointer.rsplit("/", 1)[-1]}) for item in items]
    return Problem("invalid_parameter", f"{errors[0].pointer}: {errors[0].detail}", errors=errors).response(
        request.url.path
    )


def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    code = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}.get(error.status_code)
    detail = f"{request.method} {request.url.path}: {KINDS[code].title.lower() if code else 'bad request'}"
    headers = {"Allow": _allowed_methods(request)} if error.status_code == 405 else error.headers
    return Problem(code or "malformed_body", detail, headers=headers).response(request.url.path)


def _allowed_methods(request: Request) -> str:
    # The framework's own header names the methods of the first route with this path only.
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    allowed: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path is not None and compile_path(route.path)[0].match(path):
            allowed |= route.methods or set()
    return ", ".join(sorted(allowed))


def _bug(request: Request, _error: Exception) -> Response:
    # Not logged here: the framework raises it again, and the server logs it with its traceback.
    return Problem("internal_error", "The request could not be answered.").response(request.url.path)
