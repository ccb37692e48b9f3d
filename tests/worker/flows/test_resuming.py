"""An interrupted run continues from its last checkpoint, to bitwise the student of a whole run.

Real core programs on tiny networks, real worker processes, and faults that end them.
"""

import json
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.files.store import Storage
from jobs.settings import Settings
from jobs.states import JobStatus
from jobs.values.files import Checkpoint
from jobs.values.jobs import Job
from tests.support import small_runs
from tests.support.jobs import inspected_as
from tests.support.services import Services
from tests.support.small_disk import fill, small_disk
from tests.worker.conftest import StartProcess, wait_for, wait_for_status
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS

CONFIG = small_runs.CONFIG.model_copy(update={"epochs": 8, "student_steps": 30})
LEASE_SECONDS = 3.0  # a second is too short for three workers on two busy cores


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # Sums in another order would give another student.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that `inspect` and `embed` write."""
    folder = tmp_path_factory.mktemp("canonical")
    return small_runs.write_inputs(folder, CONFIG, student_architecture="wrn_10_1")


@pytest.fixture(scope="module")
def whole(canonical: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    out = small_runs.undisturbed(canonical, tmp_path_factory.mktemp("whole"))
    return {name: (out / name).read_bytes() for name in ("student.safetensors", "metrics.jsonl")}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    patient = {"stall_seconds": 60.0, "drain_seconds": 30.0, "lease_seconds": LEASE_SECONDS}
    return settings.model_copy(update={**patient, "checkpoint_seconds": 0.2, "device": "cpu"})


@pytest.fixture
def job_id(service: Services, storage: Storage, canonical: Path) -> Iterator[str]:
    """A job that waits for its distillation."""
    waiting = inspected_as(service, storage, canonical)
    yield waiting
    service.clients.cancel(waiting)


@pytest.fixture
def start_distiller(start_process: StartProcess) -> StartProcess:
    """Start a Celery worker of queue "distill" with the real core."""

    def start() -> "subprocess.Popen[bytes]":
        name = f"distill-{uuid.uuid4()}@test"
        return start_process(
            *("celery", "-A", "worker.celery_app", "worker", "-Q", "distill", "-n", name),
            *("-P", "threads", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO"),
        )

    return start


@contextmanager
def running_supervisor(settings: Settings) -> Iterator[tuple[Supervisor, threading.Thread]]:
    """A supervisor in this process that works on the queue until the test ends."""
    supervisor = Supervisor(settings, FLOWS)
    thread = threading.Thread(target=supervisor.run_jobs, args=("distill",))
    thread.start()
    try:
        yield supervisor, thread
    finally:
        supervisor.drain.request()
        thread.join(60)
        supervisor.close()


def event_data(service: Services, job_id: str, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in service.clients.events(job_id, limit=10_000) if event.type == kind]


def wait_for_checkpoints(service: Services, job_id: str, count: int = 2) -> None:
    wait_for(lambda: len(event_data(service, job_id, "checkpoint")) >= count, seconds=60)


def resumed_at(service: Services, job_id: str) -> int:
    (resume_data,) = [data for data in event_data(service, job_id, "checkpoint") if data.get("resumed")]
    return int(resume_data["step"])


def assert_whole(service: Services, storage: Storage, job: Job, whole: dict[str, bytes]) -> None:
    """Check that the job resumed from a checkpoint, repeated no earlier step, and has the same student."""
    events = service.clients.events(job.id, limit=10_000)
    (resume,) = [event for event in events if event.type == "checkpoint" and event.data.get("resumed")]
    assert resume.data["step"] > 0
    later = [event.data["step"] for event in events if event.type == "metrics" and event.seq > resume.seq]
    assert later
    # What is measured behind an epoch has the step of a state that was saved at its end.
    assert min(later) >= resume.data["step"]
    artifacts = {artifact.name: artifact for artifact in job.artifacts}
    bodies = {name: b"".join(storage.open_range(artifacts[name].key)) for name in whole}
    assert bodies == whole


def test_after_a_kill_the_run_resumes_from_the_last_checkpoint(
    service: Services,
    storage: Storage,
    whole: dict[str, bytes],
    job_id: str,
    start_distiller: StartProcess,
    start_process: StartProcess,
) -> None:
    start_process("worker.upkeep")
    worker = start_distiller()
    wait_for_checkpoints(service, job_id)
    worker.kill()
    worker.wait()
    start_distiller()
    job = wait_for_status(service, job_id, JobStatus.SUCCEEDED, seconds=90)
    assert job.attempt == 2
    checkpoints = event_data(service, job_id, "checkpoint")
    place = next(place for place, data in enumerate(checkpoints) if data.get("resumed"))
    assert checkpoints[place] == {**checkpoints[place - 1], "resumed": True}
    assert_whole(service, storage, job, whole)


def test_a_deploy_loses_no_step(
    service: Services,
    storage: Storage,
    whole: dict[str, bytes],
    job_id: str,
    start_distiller: StartProcess,
) -> None:
    worker = start_distiller()
    wait_for_checkpoints(service, job_id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
    last_step = max(data["step"] for data in event_data(service, job_id, "metrics"))
    start_distiller()
    job = wait_for_status(service, job_id, JobStatus.SUCCEEDED, seconds=90)
    assert job.attempt == 1
    assert resumed_at(service, job_id) >= last_step
    assert_whole(service, storage, job, whole)


def test_a_damaged_checkpoint_is_skipped(
    service: Services, storage: Storage, whole: dict[str, bytes], job_id: str, settings: Settings
) -> None:
    with running_supervisor(settings) as (supervisor, thread):
        wait_for_checkpoints(service, job_id)
        supervisor.drain.request()
        thread.join(60)
    steps = [data["step"] for data in event_data(service, job_id, "checkpoint")]
    claim = service.workers.claim("distill", "tests")
    assert claim is not None
    newest, older, *_ = service.workers.checkpoints(claim)
    (state,) = [file for name, file in newest.files.items() if name.startswith("state") and name[-1] == "s"]
    storage.put_stream([b"".join(storage.open_range(state.key))[:-1] + b"!"], state.key)
    service.workers.release(claim, counts_attempt=False, reason="looked at")
    with running_supervisor(settings):
        job = wait_for_status(service, job_id, JobStatus.SUCCEEDED, seconds=90)
    codes = [data["code"] for data in event_data(service, job_id, "warning")]
    assert (codes.count("checkpoint_damaged"), codes.count("started_anew")) == (1, 0)
    assert resumed_at(service, job_id) == older.step < newest.step == steps[-1]
    assert_whole(service, storage, job, whole)


def test_a_checkpoint_of_an_older_release_costs_no_attempt_and_the_run_starts_again(
    service: Services,
    storage: Storage,
    whole: dict[str, bytes],
    job_id: str,
    settings: Settings,
    tmp_path: Path,
) -> None:
    with running_supervisor(settings) as (supervisor, thread):
        wait_for_checkpoints(service, job_id, count=1)
        supervisor.drain.request()
        thread.join(60)
    claim = service.workers.claim("distill", "tests")
    assert claim is not None
    newest = service.workers.checkpoints(claim)[0]
    (name,) = [name for name in newest.files if name.endswith(".json")]
    record = json.loads(b"".join(storage.open_range(newest.files[name].key)))
    record["facts"]["format"] -= 1
    (tmp_path / name).write_text(json.dumps(record))
    files = {**newest.files, name: storage.publish(tmp_path / name, "checkpoints")}
    service.workers.add_checkpoint(claim, Checkpoint(claim.fence, newest.epoch, newest.step, files))
    service.workers.release(claim, counts_attempt=False, reason="deployed")
    with running_supervisor(settings):
        job = wait_for_status(service, job_id, JobStatus.SUCCEEDED, seconds=90)
    assert job.attempt == 1
    codes = [data["code"] for data in event_data(service, job_id, "warning")]
    assert (codes.count("started_anew"), codes.count("checkpoint_damaged")) == (1, 0)
    artifacts = {artifact.name: artifact for artifact in job.artifacts}
    assert b"".join(storage.open_range(artifacts["student.safetensors"].key)) == whole["student.safetensors"]


def test_a_run_whose_disk_is_full_continues_on_another_worker(
    service: Services,
    storage: Storage,
    whole: dict[str, bytes],
    job_id: str,
    settings: Settings,
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "small", 64 * 2**20) as folder:
        with running_supervisor(settings.model_copy(update={"scratch_dir": folder})) as (_, thread):
            wait_for_checkpoints(service, job_id)
            fill(folder)
            thread.join(60)
        job = service.clients.get(job_id)
        assert (job.status, job.attempt) == (JobStatus.QUEUED, 2)
        reason = event_data(service, job_id, "status")[-1]["reason"]
        assert reason == "the disk of the distill worker accepted no more data from the program"
    with running_supervisor(settings):
        job = wait_for_status(service, job_id, JobStatus.SUCCEEDED, seconds=90)
    assert resumed_at(service, job_id) > 0
    assert_whole(service, storage, job, whole)


def test_training_goes_on_while_the_store_is_away(
    service: Services, storage: Storage, whole: dict[str, bytes], job_id: str, settings: Settings
) -> None:
    folder = Path(settings.storage_url.removeprefix("file://")) / "checkpoints"
    with running_supervisor(settings):
        wait_for_checkpoints(service, job_id, count=1)
        away = folder.rename(folder.with_name("away"))
        folder.touch()  # where a folder should be: nothing can be stored there
        since = len(event_data(service, job_id, "checkpoint"))
        step = event_data(service, job_id, "metrics")[-1]["step"]
        wait_for(lambda: event_data(service, job_id, "metrics")[-1]["step"] > step + 25, seconds=60)
        stored = len(event_data(service, job_id, "checkpoint"))
        assert stored - since <= 1  # one that was just on its way
        folder.unlink()
        away.rename(folder)
        wait_for_checkpoints(service, job_id, count=stored + 1)
        job = wait_for_status(service, job_id, JobStatus.SUCCEEDED, seconds=90)
    artifacts = {artifact.name: artifact for artifact in job.artifacts}
    assert b"".join(storage.open_range(artifacts["student.safetensors"].key)) == whole["student.safetensors"]
