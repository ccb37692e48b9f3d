import hashlib
import itertools
import json
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from api.uploads import parse_spec
from jobs.files.store import Storage
from jobs.settings import Settings
from nayer_core.contract import catalog
from tests.api.bodies import (
    BOUNDARY,
    CONTENT_TYPE,
    EVALUATION,
    TEACHER,
    body,
    part,
    single_bytes,
    spec,
    spec_part,
    teacher_part,
)
from tests.api.conftest import assert_problem, wait_until
from tests.support.services import Services

Post = Callable[..., httpx.Response]
FILE_ENCODER = spec_part(spec(text_encoder={"name": "file"}))
EMBEDDINGS = part("embeddings", b"embeddings", "lte.safetensors")


def stored(storage: Storage) -> set[str]:
    return {item.key for item in storage.list("uploads")}


@pytest.fixture
def nothing_is_kept(storage: Storage) -> object:
    before = stored(storage)
    yield
    wait_until(lambda: stored(storage) == before)


@pytest.mark.parametrize(
    "parts", list(itertools.permutations([teacher_part(), FILE_ENCODER, EVALUATION, EMBEDDINGS]))[::5]
)
def test_parts_may_come_in_any_order(parts: tuple[bytes, ...], post: Post, service: Services) -> None:
    response = post(*parts)
    assert response.status_code == 202, response.text
    job = service.clients.get(response.json()["id"])
    assert job.uploads["teacher"].sha256 == hashlib.sha256(TEACHER).hexdigest()
    assert job.uploads["teacher"].filename == "teacher.pt"
    assert job.uploads["evaluation"].bytes == len(b"PK evaluation")
    assert set(job.uploads) == {"teacher", "evaluation", "embeddings"}
    assert response.json()["files"]["embeddings"]["filename"] == "lte.safetensors"


def test_the_stored_teacher_is_the_one_that_was_sent(
    post: Post, service: Services, storage: Storage, settings: Settings
) -> None:
    content = bytes(range(256)) * (settings.max_teacher_bytes // 256)  # exactly the limit
    job = service.clients.get(post(spec_part(), teacher_part(content)).json()["id"])
    assert job.uploads["teacher"].key.startswith("uploads/")
    assert b"".join(storage.open_range(job.uploads["teacher"].key)) == content
    assert (job.uploads["teacher"].bytes, job.uploads["teacher"].sha256) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
    )


def test_a_body_may_come_byte_by_byte(client: httpx.Client, service: Services) -> None:
    chunks = single_bytes(body(spec_part(), teacher_part(b"\r\n--nayer\r\n--")))
    response = client.post("/jobs", content=chunks, headers={"Content-Type": CONTENT_TYPE})
    assert response.status_code == 202, response.text
    assert service.clients.get(response.json()["id"]).uploads["teacher"].bytes == len(b"\r\n--nayer\r\n--")


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([spec_part()], 422, "missing_part"),
        ([teacher_part()], 422, "missing_part"),
        ([teacher_part(), FILE_ENCODER], 422, "missing_part"),
        ([part("other", b"")], 422, "unknown_part"),
        ([teacher_part(), spec_part(), part("teacher2", b"x")], 422, "unknown_part"),
        ([teacher_part(), teacher_part()], 422, "duplicate_part"),
        ([spec_part(), teacher_part(), spec_part()], 422, "duplicate_part"),
        ([spec_part(), teacher_part(b"")], 422, "empty_file"),
        ([spec_part(), teacher_part(), part("evaluation", b"", "")], 422, "empty_file"),
        ([spec_part(), teacher_part(), EMBEDDINGS], 422, "invalid_spec"),
        ([teacher_part(), part("spec", b"{")], 400, "invalid_json"),
        ([teacher_part(), part("spec", b"")], 400, "invalid_json"),
        ([teacher_part(), spec_part([])], 422, "invalid_spec"),
        ([spec_part(), teacher_part(b"x" * (4 * 2**20 + 1))], 413, "payload_too_large"),
        ([teacher_part(), part("spec", b" " * (64 * 1024 + 1))], 413, "payload_too_large"),
        ([teacher_part(), part("embeddings", b"x" * (64 * 1024 + 1))], 413, "payload_too_large"),
    ],
)
@pytest.mark.usefixtures("nothing_is_kept")
def test_refused_bodies_leave_no_file(parts: list[bytes], status: int, code: str, post: Post) -> None:
    assert_problem(post(*parts), status, code)


@pytest.mark.usefixtures("nothing_is_kept")
def test_a_declared_length_over_the_limit_is_refused_before_the_body(url: str, settings: Settings) -> None:
    # The client only announces the body, and is answered all the same.
    head = (
        f"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {10**12}\r\n\r\n"
    )
    with connect(url) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "application/problem+json" in answer
    assert '"code":"payload_too_large"' in answer
    assert "1,000,000,000,000" in answer


def test_other_paths_take_no_large_bodies(client: httpx.Client) -> None:
    assert_problem(client.post("/jobs/x/cancel", content=b"x" * 70_000), 413, "payload_too_large")


@pytest.mark.usefixtures("nothing_is_kept")
def test_an_upload_without_a_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    chunks = itertools.chain([spec_part(), teacher_part()[:200]], itertools.repeat(b"x" * 65536, 100))
    response = client.post("/jobs", content=chunks, headers={"Content-Type": CONTENT_TYPE})
    assert_problem(response, 413, "payload_too_large")


@pytest.mark.usefixtures("nothing_is_kept")
def test_a_mistake_in_the_spec_is_answered_before_the_teacher_is_sent(url: str) -> None:
    head = (
        f"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 1000000\r\n\r\n"
    )
    with connect(url) as connection:
        # Its end is known only when the next boundary begins.
        connection.sendall(head.encode() + spec_part({}) + f"--{BOUNDARY}\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 422 ")


@pytest.mark.parametrize("end", [0, 1, 50, 300, -1, -3])
@pytest.mark.usefixtures("nothing_is_kept")
def test_a_body_that_ends_early_is_refused(end: int, client: httpx.Client) -> None:
    whole = body(teacher_part(), spec_part())[:-2]
    content = whole[: end if end > 0 else len(whole) + end - 1]
    response = client.post("/jobs", content=content, headers={"Content-Type": CONTENT_TYPE})
    assert_problem(response, 400, "truncated_body")


@pytest.mark.parametrize("declared", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_client_that_hangs_up_leaves_no_file(
    declared: str, url: str, storage: Storage, client: httpx.Client
) -> None:
    before = stored(storage)
    content = spec_part() + teacher_part(b"x" * 500_000)
    if "chunked" in declared:
        content = f"{len(content):x}\r\n".encode() + content + b"\r\n"
    with connect(url) as connection:
        head = f"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\n{declared}\r\n\r\n"
        connection.sendall(head.encode() + content)
    wait_until(lambda: stored(storage) == before)
    assert client.get("/healthz").status_code == 200


def test_a_body_of_another_type_is_refused(client: httpx.Client) -> None:
    assert_problem(client.post("/jobs", json=spec()), 415, "unsupported_media_type")
    assert_problem(client.post("/jobs"), 415, "unsupported_media_type")


@pytest.mark.usefixtures("nothing_is_kept")
def test_a_body_that_is_not_multipart_is_refused(client: httpx.Client) -> None:
    response = client.post("/jobs", content=b"nonsense", headers={"Content-Type": CONTENT_TYPE})
    assert_problem(response, 400, "malformed_body")


@pytest.mark.parametrize(
    ("filename", "label"), [("../../etc/passwd", "passwd"), ("C:\\nets\\wrn.pt", "wrn.pt"), ("é.pt", "é.pt")]
)
def test_the_client_s_file_name_is_only_a_label(filename: str, label: str, post: Post) -> None:
    response = post(spec_part(), teacher_part(filename=filename))
    assert response.json()["teacher"]["filename"] == label


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff{}",
        b"{'labels': 1}",
        b'{"labels": ["a", "b"], "labels": ["c", "d"]}',
        b'{"teacher": {"accuracy": NaN}}',
        b'{"config": {"student_lr": -Infinity}}',
        b'{"config": {"student_lr": 1e999}}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b"[" * 50_000,
        b'{"labels": ["\\u0000", "b"]}',
        b'{"labels": ["\\ud800", "b"]}',
        b'{"metadata": {"\\udfff": "b"}}',
    ],
    ids=range(12),
)
def test_a_spec_that_is_not_strict_json_is_refused(document: bytes, post: Post) -> None:
    assert_problem(post(teacher_part(), part("spec", document)), 400, "invalid_json")


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"labels": None}, "invalid_spec", "/labels"),
        ({"labels": ["a"]}, "invalid_spec", "/labels"),
        ({"labels": {"0": "a", "2": "b"}}, "invalid_spec", "/labels"),
        ({"labels": ["a", ""]}, "invalid_spec", "/labels/1"),
        ({"surprise": 1}, "invalid_spec", "/surprise"),
        ({"a/b~c": 1}, "invalid_spec", "/a~1b~0c"),
        ({"student": {"architecture": "wrn16_1"}}, "unknown_architecture", "/student/architecture"),
        ({"student": {"architecture": "x" * 30_000}}, "unknown_architecture", "/student/architecture"),
        ({"preset": "fast"}, "unknown_preset", "/preset"),
        ({"text_encoder": {"name": "clop"}}, "unknown_text_encoder", "/text_encoder/name"),
        ({"config": {"epoch": 1}}, "unknown_config_field", "/config"),
        ({"config": {"epochs": 0}}, "invalid_spec", "/config/epochs"),
        ({"config": {"epochs": 10**400}}, "invalid_spec", "/config/epochs"),
        ({"max_runtime_seconds": 10**12}, "invalid_spec", "/max_runtime_seconds"),
        ({"seed": 2**31}, "invalid_spec", "/seed"),
        ({"metadata": {str(index): "" for index in range(17)}}, "invalid_spec", "/metadata"),
    ],
)
def test_the_answer_points_at_the_mistake_in_the_spec(
    changes: dict[str, object], code: str, pointer: str, post: Post
) -> None:
    problem = assert_problem(post(teacher_part(), spec_part(spec(**changes))), 422, code)
    errors = problem["errors"]
    assert isinstance(errors, list)
    assert errors[0]["pointer"] == pointer
    assert "pydantic" not in str(problem)
    assert len(str(problem)) < 4000


def test_an_unknown_architecture_is_answered_with_the_nearest_name(post: Post) -> None:
    problem = post(teacher_part(), spec_part(spec(student={"architecture": "wrn16_1"}))).json()
    assert "wrn_16_1" in problem["detail"]


def test_at_most_50_mistakes_are_listed(post: Post) -> None:
    document = spec(labels=[""] * 5000)
    assert len(post(teacher_part(), spec_part(document)).json()["errors"]) == 50


def test_every_own_architecture_is_accepted() -> None:
    for name in (*catalog.OWN_ARCHITECTURES, *catalog.WIDE_RESNETS):
        assert (
            parse_spec(json.dumps(spec(student={"architecture": name})).encode()).student.architecture == name
        )


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=10)
