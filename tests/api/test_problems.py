import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import jobs.errors
from api import errors
from api.problems import KINDS, MAX_DETAIL_CHARS, Problem
from jobs.errors import JobsError
from nayer_core.contract.errors import ErrorCode
from tests.api.conftest import assert_problem

# A file that a row names and the store does not have is a bug, and answered as one.
BUGS = {"lease_lost", "file_missing", "file_corrupt", "file_too_large", "jobs_error"}


def test_an_unknown_path_is_not_found(client: httpx.Client) -> None:
    assert_problem(client.get("/no/such/path"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", "GET, HEAD, POST"),
        ("PATCH", "/jobs/x", "DELETE, GET, HEAD"),
        ("GET", "/jobs/x/cancel", "POST"),
        ("POST", "/jobs/x/student", "GET, HEAD"),
        ("DELETE", "/presets", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_answered_with_the_allowed_ones(
    method: str, path: str, allowed: str, client: httpx.Client
) -> None:
    response = client.request(method, path)
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/jobs/", "/job", "/v1/jobs", "/jobs/validate/"])
@pytest.mark.parametrize("size", [10, 100_000, 10_000_000])
def test_a_large_body_to_a_wrong_path_is_not_found(path: str, size: int, client: httpx.Client) -> None:
    assert_problem(client.post(path, content=b"x" * size), 404, "not_found")


def test_a_large_body_with_a_wrong_method_is_405(client: httpx.Client) -> None:
    assert_problem(client.put("/jobs", content=b"x" * 10_000_000), 405, "method_not_allowed")


def test_a_bug_is_answered_without_its_cause() -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/bug")
    def bug() -> None:
        raise RuntimeError("secret of the inside")

    client = TestClient(app, raise_server_exceptions=False)
    response = client.get("/bug")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text


def test_every_error_of_jobs_has_an_answer() -> None:
    codes = {
        item.code
        for item in vars(jobs.errors).values()
        if isinstance(item, type) and issubclass(item, JobsError)
    }
    assert codes - BUGS <= set(KINDS)


def test_codes_of_the_contract_keep_their_meaning() -> None:
    shared = {code.value for code in ErrorCode} & set(KINDS)
    assert shared == {
        "invalid_spec",
        "unknown_architecture",
        "unknown_method",
        "unknown_preset",
        "unknown_text_encoder",
    }


def test_details_stay_short_and_are_unicode() -> None:
    problem = Problem("invalid_spec", "\ud800" + "x" * 10_000)
    assert len(problem.detail) == MAX_DETAIL_CHARS
    problem.response("/jobs")
