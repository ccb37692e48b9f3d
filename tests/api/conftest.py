"""A real server on a real port over real parts, and an object that plays the worker."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from api.connections import ConnectionLimits
from api.main import create_app
from api.server import ServerConfig, listen
from jobs.files.store import Storage
from jobs.kinds import DISTILL, VALIDATE
from jobs.settings import Settings
from jobs.states import QueueName
from jobs.values.claims import Claim, StageResult
from jobs.values.files import StoredFile
from jobs.values.jobs import Job
from nayer_core.contract.spec import JobSpec
from tests.api import bodies
from tests.support.jobs import QUALITY
from tests.support.services import Services

MIB = 2**20


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Small limits, so that passing them is cheap."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        storage_url=f"file://{tmp_path_factory.mktemp('store')}",
        max_teacher_bytes=4 * MIB,
        max_evaluation_bytes=1 * MIB,
        max_embeddings_bytes=64 * 1024,
        max_spec_bytes=64 * 1024,
        api_key=None,
    )


def serve(settings: Settings, limits: ConnectionLimits | None = None) -> Iterator[str]:
    """Run the service in a thread until the test is over; yield its URL."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    config = ServerConfig(create_app(settings), limits or ConnectionLimits(), log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    yield from serve(settings)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Services]:
    service = Services.open(settings)
    yield service
    service.close()


@pytest.fixture(scope="module")
def storage(settings: Settings) -> Storage:
    return Storage.open(settings.storage_url)


class PlayedWorker:
    """Does to jobs what a worker does, without a core."""

    def __init__(self, service: Services, storage: Storage, folder: Path):
        self.service = service
        self.storage = storage
        self.folder = folder

    def claim(self, queue: QueueName, job_id: str) -> Claim:
        """Claim this job; jobs that other tests left waiting are failed on the way."""
        while claim := self.service.workers.claim(queue, "test:1"):
            if claim.job.id == job_id:
                return claim
            self.service.workers.fail(claim, "worker_lost", "Another test left this job.", "Nothing.")
        raise AssertionError(f"{job_id} does not wait in {queue}")

    def inspect(self, job_id: str) -> Job:
        """Claim the job and end its inspection."""
        claim = self.claim("inspect", job_id)
        spec = JobSpec.model_validate(claim.job.spec)
        preset, config = spec.resolved_config()
        resolved = {"preset": preset, "config": config.model_dump(mode="json")}
        report = {"architecture": "wrn_40_2", "num_classes": 2}
        return self.service.workers.end_stage(
            claim,
            StageResult(
                resolved=resolved,
                report=report,
                inputs={} if claim.job.kind is VALIDATE else {"teacher.safetensors": self.store(b"weights")},
            ),
        )

    def start(self, job_id: str) -> Claim:
        """Inspect the job and claim it for its run."""
        self.inspect(job_id)
        return self.claim("distill", job_id)

    def finish(self, claim: Claim, content: bytes = b"a student") -> Job:
        """End the job with a student and a card."""
        artifacts = [
            DISTILL.artifact("student.safetensors", self.store(content)),
            DISTILL.artifact("model_card.json", self.store(b"{}")),
        ]
        return self.service.workers.end_stage(
            claim,
            StageResult(artifacts=artifacts, metrics={"agreement_on_synthetic": 0.9}, quality=QUALITY),
        )

    def store(self, content: bytes) -> StoredFile:
        """Publish a file."""
        path = self.folder / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return self.storage.publish(path, "artifacts")


@pytest.fixture(scope="module")
def worker(service: Services, storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> PlayedWorker:
    return PlayedWorker(service, storage, tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def post(client: httpx.Client) -> Callable[..., httpx.Response]:
    """Send a body made of parts to `POST /jobs`."""

    def send(*parts: bytes, path: str = "/jobs", **headers: str) -> httpx.Response:
        content = bodies.body(*(parts or (bodies.spec_part(), bodies.teacher_part())))
        sent_headers = {"Content-Type": bodies.CONTENT_TYPE} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return client.post(path, content=content, headers=sent_headers)

    return send


@pytest.fixture
def submit(post: Callable[..., httpx.Response]) -> Callable[..., str]:
    """Create a job; return its id."""

    def create(*parts: bytes, **options: str) -> str:
        response = post(*parts, **options)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    return create


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition that another thread fulfils; raise an error after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s")
        time.sleep(0.01)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check that the answer is a whole problem document with this status and code; return it."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = response.json()
    assert problem["type"] == f"urn:nayer:problem:{code}"
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    for field in ("title", "detail", "hint"):
        assert problem[field], field
    assert "Traceback" not in response.text
    return problem
