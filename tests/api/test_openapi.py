from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from api.problems import KINDS


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    description: dict[str, Any] = client.get("/openapi.json").json()
    return description


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_the_description_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_operations_keep_their_names(document: dict[str, Any]) -> None:
    """Generated clients use these names: a renamed operation breaks them."""
    names = {operation["operationId"] for operation in operations(document)}
    assert names == {
        "createJob", "validateJob", "listJobs", "getJob", "pauseJob", "resumeJob", "cancelJob",
        "deleteJob", "listEvents", "listDeliveries", "redeliver",
        "getMetrics", "listArtifacts", "downloadArtifact", "downloadStudent", "listArchitectures",
        "listPresets", "getSchema", "getHealth", "getReadiness", "getPrometheusMetrics", "getVersion",
    }  # fmt: skip


def test_every_operation_has_a_summary_and_a_description(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for operation in operations(document):
        assert operation["summary"], operation
        assert operation["description"], operation
        assert set(operation["tags"]) <= tags


def test_every_problem_is_documented_where_it_can_happen(document: dict[str, Any]) -> None:
    documented: set[str] = set()
    for operation in operations(document):
        for status, response in operation["responses"].items():
            if "application/problem+json" not in response.get("content", {}):
                assert int(status) < 400 or operation["operationId"] == "getReadiness"
                continue
            for code, kind in KINDS.items():
                if f"`{code}`" in response["description"]:
                    assert kind.status == int(status)
                    documented.add(code)
    # These answer requests that reach no operation.
    assert set(KINDS) - documented == {
        "not_found", "method_not_allowed",
        "malformed_request", "headers_stalled", "headers_too_large", "too_many_connections",
    }  # fmt: skip


def test_the_body_of_a_submission_is_documented(document: dict[str, Any]) -> None:
    for path in ("/jobs", "/jobs/validate"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        assert set(content["schema"]["properties"]) == {"teacher", "spec", "evaluation", "embeddings"}
        assert content["schema"]["required"] == ["teacher", "spec"]
    assert document["components"]["schemas"]["JobSpec"]["examples"]


def test_pages_that_need_the_internet_are_not_served(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
