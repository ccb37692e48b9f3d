import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.files.store import Storage
from jobs.kinds import DISTILL
from jobs.settings import Settings
from jobs.states import JobStatus
from jobs.values.jobs import Job, NewJob
from jobs.values.kinds import JobKind
from nayer_core.contract.spec import JobSpec
from tests.support.services import Services
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS

FAKE_CORE = (sys.executable, "-P", str(Path(__file__).with_name("fake_core.py")))
LEASE_SECONDS = 2.0
SEEDED_SECRET = "seeded-secret-of-the-test"

SPEC: dict[str, Any] = {
    "labels": ["cat", "dog"],
    "teacher": {
        "input_size": [3, 32, 32],
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
    "student": {"architecture": "wrn_16_1"},
    "preset": "quick",
}

Submit = Callable[..., str]
StartProcess = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Short leases, and short limits for children that hang."""
    short = {
        "lease_seconds": LEASE_SECONDS,
        "upkeep_seconds": 0.3,
        "ring_again_seconds": 1.0,
        "inspect_seconds": 2.0,
        "stall_seconds": 1.5,
        "drain_seconds": 10.0,
    }
    return settings.model_copy(update=short)


@pytest.fixture
def supervisor(settings: Settings) -> Iterator[Supervisor]:
    supervisor = Supervisor(settings, FLOWS, FAKE_CORE)
    yield supervisor
    supervisor.close()


@pytest.fixture
def submit(service: Services, storage: Storage) -> Iterator[Submit]:
    """Create a job and say how its program behaves, e.g. `submit(distill="hang")`.

    Jobs that have not ended with the test are cancelled: the next test has another store.
    """
    job_ids: list[str] = []

    def create(kind: JobKind = DISTILL, max_runtime_seconds: int | None = None, **behaviours: str) -> str:
        teacher = storage.put_stream([json.dumps(behaviours).encode()], f"uploads/{uuid.uuid4()}")
        spec = JobSpec.model_validate({**SPEC, "max_runtime_seconds": max_runtime_seconds})
        job, _ = service.clients.submit(NewJob(kind=kind, spec=spec, uploads={"teacher": teacher}))
        job_ids.append(job.id)
        return job.id

    yield create
    for job_id in job_ids:
        service.clients.cancel(job_id)


@pytest.fixture
def start_process(settings: Settings, tmp_path: Path) -> Iterator[StartProcess]:
    """Start a program of the service with this test's settings, or others by name; ended with the test."""
    environment = {**os.environ, **as_environment(settings), "NAYER_SEEDED": SEEDED_SECRET}
    with contextlib.ExitStack() as stack:

        def start(*command: str, **others: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / "processes.log").open("ab"))
            its_own = environment | {f"NAYER_{name.upper()}": value for name, value in others.items()}
            process = subprocess.Popen([sys.executable, "-m", *command], env=its_own, stdout=log, stderr=log)
            stack.callback(end, process)
            return process

        yield start


@pytest.fixture
def start_worker(start_process: StartProcess) -> StartProcess:
    """Start a Celery worker process of one queue, with the fake core."""

    def start(queue: str, slots: int = 1, **others: str) -> subprocess.Popen[bytes]:
        name = f"{queue}-{uuid.uuid4()}@test"
        return start_process(
            *("celery", "-A", "tests.worker.celery_with_fake_core", "worker", "-Q", queue, "-n", name),
            *("-P", "threads", "-c", str(slots), "--without-gossip", "--without-mingle", "-l", "INFO"),
            **others,
        )

    return start


def as_environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(mode="json", exclude_none=True)
    return {f"NAYER_{name.upper()}": str(value) for name, value in values.items()}


def end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s"
        time.sleep(0.05)
    return value


def wait_for_status(service: Services, job_id: str, status: JobStatus, seconds: float = 30) -> Job:
    deadline = time.monotonic() + seconds
    while (job := service.clients.get(job_id)).status is not status:
        assert time.monotonic() < deadline, f"after {seconds} s the job is {job}"
        assert not job.is_terminal, f"the job ended as {job.status}: {job.error}"
        time.sleep(0.05)
    return job


def wait_for_steps(service: Services, job_id: str) -> None:
    wait_for(lambda: service.clients.metrics(job_id).get("kl"))
