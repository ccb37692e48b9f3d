"""A worker whose disk is full releases its job for another worker, with the reason."""

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.files.store import Storage
from jobs.kinds import DISTILL
from jobs.settings import Settings
from jobs.states import JobStatus
from jobs.values.jobs import NewJob
from nayer_core.contract.spec import JobSpec
from tests.support.services import Services
from tests.support.small_disk import fill, small_disk
from tests.worker.conftest import FAKE_CORE, SPEC, Submit, wait_for
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS


@pytest.fixture
def small(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """The scratch folder of `worker_without_room`."""
    with small_disk(tmp_path / "small", 128 * 1024) as folder:
        yield folder


@pytest.fixture
def worker_without_room(settings: Settings, small: Path) -> Iterator[Supervisor]:
    """A worker with a very small disk."""
    supervisor = Supervisor(settings.model_copy(update={"scratch_dir": small}), FLOWS, FAKE_CORE)
    yield supervisor
    supervisor.close()


@pytest.fixture
def large_job(service: Services, storage: Storage) -> Iterator[str]:
    """A job whose teacher is larger than the disk of `worker_without_room`."""
    behaviours = json.dumps({"ballast": "x" * 2**20}).encode()
    teacher = storage.put_stream([behaviours], f"uploads/{uuid.uuid4()}")
    job, _ = service.clients.submit(
        NewJob(kind=DISTILL, spec=JobSpec.model_validate(SPEC), uploads={"teacher": teacher})
    )
    yield job.id
    service.clients.cancel(job.id)


def reasons(service: Services, job_id: str) -> list[str]:
    events = service.clients.events(job_id)
    return [event.data["reason"] for event in events if event.type == "status" and "reason" in event.data]


def test_a_job_that_does_not_fit_waits_for_a_worker_with_more_space(
    service: Services, worker_without_room: Supervisor, supervisor: Supervisor, large_job: str
) -> None:
    worker_without_room.run_jobs("inspect")
    job = service.clients.get(large_job)
    assert (job.status, job.attempt) == (JobStatus.VALIDATING, 2)
    assert reasons(service, large_job) == ["the disk of the inspect worker is full"]
    worker_without_room.run_jobs("inspect")
    assert service.clients.get(large_job).attempt == 2, "it rests, so that another worker comes first"
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    assert service.clients.get(large_job).status is JobStatus.SUCCEEDED


def test_a_job_that_fits_on_no_worker_fails_with_its_own_code(
    service: Services, worker_without_room: Supervisor, large_job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.claims.supervisor._REST_SECONDS", 0.0)
    worker_without_room.run_jobs("inspect")
    job = service.clients.get(large_job)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 3)
    assert job.error is not None
    assert (job.error["code"], job.error["retryable"]) == ("disk_failed", True)
    assert "the disk of the inspect worker is full" in job.error["message"]


def test_a_core_on_a_full_disk_does_not_fail_the_job(
    service: Services, supervisor: Supervisor, submit: Submit
) -> None:
    job_id = submit(inspect="disk_failed")
    supervisor.run_jobs("inspect")
    assert reasons(service, job_id) == [
        "the disk of the inspect worker accepted no more data from the program"
    ]
    assert service.clients.get(job_id).status is JobStatus.VALIDATING


def test_a_disk_without_room_for_a_folder_does_not_fail_the_job(
    service: Services,
    worker_without_room: Supervisor,
    submit: Submit,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = submit()

    def refuse(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.process.scratch.tempfile.mkdtemp", refuse)
    worker_without_room.run_jobs("inspect")
    assert reasons(service, job_id) == ["the disk of the inspect worker is full"]


def test_a_worker_waits_for_a_full_store(
    service: Services, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "store", 256 * 1024) as folder:
        there = settings.model_copy(update={"storage_url": f"file://{folder}"})
        teacher = Storage.open(there.storage_url).put_stream([b"{}"], f"uploads/{uuid.uuid4()}")
        job, _ = service.clients.submit(
            NewJob(kind=DISTILL, spec=JobSpec.model_validate(SPEC), uploads={"teacher": teacher})
        )
        ballast = fill(folder)
        supervisor = Supervisor(there, FLOWS, FAKE_CORE)
        thread = threading.Thread(target=supervisor.run_jobs, args=("inspect",))
        thread.start()
        wait_for(lambda: "waiting: The storage has no room" in caplog.text)
        ballast.unlink()
        thread.join(30)
        supervisor.close()
        job = service.clients.get(job.id)
        assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
        service.clients.cancel(job.id)
