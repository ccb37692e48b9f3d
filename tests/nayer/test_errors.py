"""Problem documents as errors of Python."""

from typing import Any

import httpx
import pytest

from nayer import ApiError, ClientError, InvalidField, ServiceUnreachableError
from nayer.errors import raise_for_problem


def error_of(response: httpx.Response) -> ApiError:
    with pytest.raises(ApiError) as raised:
        raise_for_problem(response)
    return raised.value


def test_a_successful_response_raises_nothing() -> None:
    raise_for_problem(httpx.Response(204))


def test_a_problem_keeps_its_code_detail_and_hint() -> None:
    document = {"code": "job_not_found", "detail": "There is no job x.", "hint": "Jobs are listed at /jobs."}
    error = error_of(httpx.Response(404, json=document))
    assert (error.status, error.code, error.message) == (404, "job_not_found", "There is no job x.")
    assert error.hint == "Jobs are listed at /jobs."
    assert error.fields == ()
    assert str(error) == "job_not_found: There is no job x. Jobs are listed at /jobs."


def test_each_refused_field_is_a_value_and_a_line_of_the_message() -> None:
    entries = [
        {"pointer": "/labels", "code": "missing", "detail": "Field required"},
        {"pointer": "/seed", "code": "int_type", "detail": "Input should be an integer"},
    ]
    document = {"code": "invalid_spec", "detail": "/labels: Field required (and 1 more)", "errors": entries}
    error = error_of(httpx.Response(422, json=document))
    assert error.fields == tuple(InvalidField(**entry) for entry in entries)
    assert error.message == "/labels: Field required\n/seed: Input should be an integer"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"content": b"<html>Bad gateway</html>"}, id="a proxy's page"),
        pytest.param({"json": ["no", "object"]}, id="a list"),
        pytest.param({"content": b"\xff"}, id="no text"),
    ],
)
def test_an_answer_that_is_no_problem_document_has_its_status_as_code(answer: dict[str, Any]) -> None:
    error = error_of(httpx.Response(502, **answer))
    assert (error.status, error.code, error.message, error.hint) == (502, "http_502", "HTTP 502.", "")


def test_hints_for_python_name_no_option_of_the_command_line() -> None:
    error: ClientError = ServiceUnreachableError("http://here", "refused")
    assert "--" not in str(error)
