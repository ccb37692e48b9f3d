"""Every code of a problem, reached over HTTP as a client would reach it.

`DRIVERS` holds one request for each code; a code without a request fails, and so does the reverse.
"""

import contextlib
import gzip
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from api.connections import ConnectionLimits
from api.multipart import MultipartBody
from api.problems import KINDS
from jobs.settings import Settings
from tests.api.bodies import BOUNDARY, CONTENT_TYPE, EVALUATION, body, part, spec, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem, serve
from tests.support.small_disk import small_disk

MULTIPART = {"Content-Type": CONTENT_TYPE}


@dataclass
class Stage:
    """The parts that a request of `DRIVERS` uses."""

    client: httpx.Client
    settings: Settings
    worker: PlayedWorker
    folder: Path
    patch: pytest.MonkeyPatch

    def post(self, *parts: bytes, **headers: str) -> httpx.Response:
        sent_headers = MULTIPART | {name.replace("_", "-"): value for name, value in headers.items()}
        content = body(*(parts or (spec_part(), teacher_part())))
        return self.client.post("/jobs", content=content, headers=sent_headers)

    def spec(self, **changes: Any) -> httpx.Response:
        return self.post(spec_part(spec(**changes)), teacher_part())

    def job(self) -> str:
        answer = self.post()
        assert answer.status_code == 202, answer.text
        return f"/jobs/{answer.json()['id']}"

    def finished(self) -> str:
        job = self.job()
        self.worker.finish(self.worker.start(job.removeprefix("/jobs/")))
        return job

    @contextlib.contextmanager
    def elsewhere(self, **settings: object) -> Iterator[httpx.Client]:
        """The same service with other settings."""
        with (
            contextlib.contextmanager(serve)(self.settings.model_copy(update=settings)) as url,
            httpx.Client(base_url=url, timeout=20) as client,
        ):
            yield client


@pytest.fixture
def stage(
    client: httpx.Client,
    settings: Settings,
    worker: PlayedWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    return Stage(client, settings, worker, tmp_path, monkeypatch)


def truncated(stage: Stage) -> httpx.Response:
    return stage.client.post("/jobs", content=body(spec_part(), teacher_part())[:-9], headers=MULTIPART)


def locked(stage: Stage) -> httpx.Response:
    with stage.elsewhere(api_key=SecretStr("a key of this test")) as client:
        return client.get("/jobs")


def raw(url: str, request_bytes: bytes, path: str) -> httpx.Response:
    """Send bytes that no HTTP library would send; the server must answer and close the connection."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request_bytes)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, content = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    request = httpx.Request("POST", url + path)
    return httpx.Response(int(status_line.split()[1]), headers=headers, content=content, request=request)


def stalled(stage: Stage) -> httpx.Response:
    stage.patch.setattr(MultipartBody.__init__, "__defaults__", (0.1,))
    head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 999\r\n\r\n"
    return raw(str(stage.client.base_url), f"{head}--{BOUNDARY}\r\n".encode(), "/jobs")


def half_open(stage: Stage) -> httpx.Response:
    with contextlib.contextmanager(serve)(stage.settings, ConnectionLimits(head_seconds=0.2)) as url:
        return raw(url, b"GET /jobs HTTP/1.1\r\nHost:", "/jobs")


def crowded(stage: Stage) -> httpx.Response:
    stream = {"Accept": "text/event-stream"}
    with (
        contextlib.contextmanager(serve)(stage.settings, ConnectionLimits(connections=1)) as url,
        httpx.stream("GET", url + stage.job() + "/events", headers=stream),
    ):
        return raw(url, b"", "")


def compressed(stage: Stage) -> httpx.Response:
    content = gzip.compress(body(spec_part(), teacher_part()))
    return stage.client.post("/jobs", content=content, headers=MULTIPART | {"Content-Encoding": "gzip"})


def not_found(stage: Stage) -> httpx.Response:
    return stage.client.get("/jobs/" + "0" * 32)


def no_delivery(stage: Stage) -> httpx.Response:
    return stage.client.post(f"{stage.job()}/deliveries/msg_{'0' * 32}/redeliver")


def expired(stage: Stage) -> httpx.Response:
    job = stage.finished()
    with stage.elsewhere(keep_artifacts_seconds=1e-6) as client:
        return client.get(f"{job}/student")


def reused_key(stage: Stage) -> httpx.Response:
    assert stage.post(Idempotency_Key="every code").status_code == 202
    return stage.post(spec_part(spec(seed=7)), teacher_part(), Idempotency_Key="every code")


def lost_file(stage: Stage) -> httpx.Response:
    """The row names a file that is not in the store: only a bug or an operator can cause that."""
    job = stage.finished()
    student = stage.worker.service.clients.artifact(job.removeprefix("/jobs/"), "student.safetensors")
    stage.worker.storage.delete(student.key)
    return stage.client.get(f"{job}/student")


def full(stage: Stage) -> httpx.Response:
    with (
        small_disk(stage.folder / "small", 64 * 1024) as folder,
        stage.elsewhere(storage_url=f"file://{folder}/store") as client,
    ):
        content = body(spec_part(), teacher_part(b"x" * 2**20))
        return client.post("/jobs", content=content, headers=MULTIPART)


def away(stage: Stage) -> httpx.Response:
    with stage.elsewhere(database_url="postgresql://nobody@127.0.0.1:1/nothing") as client:
        return client.get("/jobs")


def hook(stage: Stage) -> httpx.Response:
    return stage.spec(webhook={"url": "http://127.0.0.1/inside"})


DRIVERS: dict[str, Callable[[Stage], httpx.Response]] = {
    "malformed_request": lambda stage: raw(str(stage.client.base_url), b"nonsense\r\n\r\n", ""),
    "malformed_body": lambda stage: stage.client.post("/jobs", content=b"nonsense" * 9, headers=MULTIPART),
    "truncated_body": truncated,
    "invalid_json": lambda stage: stage.post(part("spec", b"{nonsense"), teacher_part()),
    "invalid_idempotency_key": lambda stage: stage.post(Idempotency_Key="a" * 256),
    "unauthorized": locked,
    "not_found": lambda stage: stage.client.get("/nothing/here"),
    "job_not_found": not_found,
    "artifact_not_found": lambda stage: stage.client.get(f"{stage.finished()}/artifacts/samples.png"),
    "delivery_not_found": no_delivery,
    "method_not_allowed": lambda stage: stage.client.put("/jobs"),
    "headers_stalled": half_open,
    "upload_stalled": stalled,
    "job_not_terminal": lambda stage: stage.client.delete(stage.job()),
    "job_not_pausable": lambda stage: stage.client.post(f"{stage.job()}/pause"),
    "job_not_paused": lambda stage: stage.client.post(f"{stage.finished()}/resume"),
    "artifact_not_ready": lambda stage: stage.client.get(f"{stage.job()}/student"),
    "artifact_expired": expired,
    "payload_too_large": lambda stage: stage.post(spec_part(), teacher_part(b"x" * (2**22 + 1))),
    "unsupported_media_type": lambda stage: stage.client.post("/jobs", json=spec()),
    "compressed_body": compressed,
    "range_not_satisfiable": lambda stage: stage.client.get(
        f"{stage.finished()}/student", headers={"Range": "bytes=999-"}
    ),
    "invalid_parameter": lambda stage: stage.client.get("/jobs?limit=0"),
    "missing_part": lambda stage: stage.post(spec_part()),
    "unknown_part": lambda stage: stage.post(part("student", b"x"), spec_part(), teacher_part()),
    "duplicate_part": lambda stage: stage.post(EVALUATION, EVALUATION, spec_part(), teacher_part()),
    "empty_file": lambda stage: stage.post(spec_part(), teacher_part(b"")),
    "invalid_spec": lambda stage: stage.spec(seed=-1),
    "unknown_architecture": lambda stage: stage.spec(student={"architecture": "wrn161"}),
    "unknown_method": lambda stage: stage.spec(method="magic"),
    "unknown_preset": lambda stage: stage.spec(preset="fastest"),
    "unknown_text_encoder": lambda stage: stage.spec(text_encoder={"name": "word2vec"}),
    "unknown_config_field": lambda stage: stage.spec(config={"epoch": 3}),
    "webhook_address_refused": hook,
    "idempotency_key_reused": reused_key,
    "headers_too_large": lambda stage: stage.client.get("/jobs", headers={"X-A": "a" * 70_000}),
    "internal_error": lost_file,
    "storage_full": full,
    "too_many_connections": crowded,
    "service_unavailable": away,
}


def test_every_code_has_a_request() -> None:
    assert set(DRIVERS) == set(KINDS)


@pytest.mark.parametrize("code", DRIVERS)
def test_each_code_is_answered(code: str, stage: Stage) -> None:
    response = DRIVERS[code](stage)
    assert_problem(response, KINDS[code].status, code)
    assert ("retry-after" in response.headers) == (KINDS[code].status == 503)
