import contextlib
import logging
from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from jobs.settings import Settings
from tests.api.bodies import CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import assert_problem, serve

KEY = "a key of this test only: é"


@pytest.fixture(scope="module")
def locked(settings: Settings) -> Iterator[httpx.Client]:
    with_key = settings.model_copy(update={"api_key": SecretStr(KEY)})
    with contextlib.contextmanager(serve)(with_key) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("POST", "/jobs/validate"),
        ("GET", "/jobs/x"),
        ("DELETE", "/jobs/x"),
        ("POST", "/jobs/x/cancel"),
        ("GET", "/jobs/x/events"),
        ("GET", "/jobs/x/student"),
        ("HEAD", "/jobs/x/student"),
        ("GET", "/metrics"),
        ("GET", "/presets"),
        ("GET", "/version"),
    ],
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic abc", "Bearer", "Bearer \xff"])
def test_a_request_without_the_key_is_refused(
    method: str, path: str, header: str | None, locked: httpx.Client
) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    response = locked.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        assert_problem(response, 401, "unauthorized")


def test_with_the_key_everything_works(locked: httpx.Client) -> None:
    headers = {b"Authorization": b"Bearer " + KEY.encode()}
    assert locked.get("/jobs", headers=headers).status_code == 200
    content = body(spec_part(), teacher_part())
    response = locked.post(
        "/jobs", content=content, headers=headers | {b"Content-Type": CONTENT_TYPE.encode()}
    )
    assert response.status_code == 202


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_probes_and_the_description_need_no_key(path: str, locked: httpx.Client) -> None:
    assert locked.get(path).status_code == 200


def test_the_description_requires_the_key_where_one_is_set(
    locked: httpx.Client, client: httpx.Client
) -> None:
    with_key, without = (asking.get("/openapi.json").json()["paths"] for asking in (locked, client))
    assert with_key["/jobs"]["get"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in with_key["/healthz"]["get"]
    assert "security" not in without["/jobs"]["get"]


def test_a_key_must_be_long_and_is_never_shown(settings: Settings) -> None:
    with_key = settings.model_copy(update={"api_key": SecretStr(KEY)})
    assert KEY not in repr(with_key)
    with pytest.raises(ValidationError) as error:
        Settings(**settings.model_dump() | {"api_key": "too short"})
    assert "too short" not in str(error.value)


def test_a_service_without_a_key_logs_a_warning(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), contextlib.contextmanager(serve)(settings):
        pass
    assert "NAYER_API_KEY is not set" in caplog.text
