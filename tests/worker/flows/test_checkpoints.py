"""Checkpoints on their way to the store and back, with a core that saves two small files."""

import threading
from pathlib import Path
from typing import Any

import pytest

from jobs.files.store import Storage
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.support.services import Services
from tests.worker.conftest import FAKE_CORE, Submit, wait_for_status, wait_for_steps
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS


@pytest.fixture
def drained_job(service: Services, settings: Settings, submit: Submit, tmp_path: Path) -> str:
    """A job whose worker was shut down after some steps; it ends well with the next one."""
    supervisor = Supervisor(settings, FLOWS, FAKE_CORE)
    job_id = submit(distill="steps", marker=str(tmp_path / "once"))
    supervisor.run_jobs("inspect")
    thread = threading.Thread(target=supervisor.run_jobs, args=("distill",))
    thread.start()
    wait_for_steps(service, job_id)
    supervisor.drain.request()
    thread.join(30)
    supervisor.close()
    assert service.clients.get(job_id).status is JobStatus.QUEUED
    return job_id


def event_data(service: Services, job_id: str, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in service.clients.events(job_id, limit=10_000) if event.type == kind]


def codes(service: Services, job_id: str) -> list[str]:
    return [data["code"] for data in event_data(service, job_id, "warning")]


def student(service: Services, storage: Storage, job_id: str) -> str:
    return b"".join(storage.open_range(service.clients.artifact(job_id, "student.safetensors").key)).decode()


def test_the_last_state_is_stored_before_the_job_is_released(
    service: Services, storage: Storage, supervisor: Supervisor, drained_job: str
) -> None:
    (checkpoint,) = event_data(service, drained_job, "checkpoint")
    supervisor.run_jobs("distill")
    assert service.clients.get(drained_job).attempt == 1
    assert event_data(service, drained_job, "checkpoint") == [checkpoint, {**checkpoint, "resumed": True}]
    assert student(service, storage, drained_job) == f"a student from step {checkpoint['step']}"
    assert codes(service, drained_job) == []
    service.upkeep.sweep(storage, grace_seconds=-1)
    assert list(storage.list("checkpoints")) == []


def test_after_a_crash_the_run_resumes_from_the_last_state(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit, tmp_path: Path
) -> None:
    job_id = submit(distill="save_and_crash", marker=str(tmp_path / "once"))
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert student(service, storage, job_id) == "a student from step 7"


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_a_checkpoint_that_the_store_lost_or_damaged_is_skipped_with_a_warning(
    service: Services, storage: Storage, supervisor: Supervisor, drained_job: str, harm: str
) -> None:
    for entry in list(storage.list("checkpoints")):
        storage.delete(entry.key)
        if harm == "damaged":
            storage.put_stream([b"damaged"], entry.key)
    supervisor.run_jobs("distill")
    assert service.clients.get(drained_job).status is JobStatus.SUCCEEDED
    assert student(service, storage, drained_job) == "a student"
    assert codes(service, drained_job) == ["checkpoint_damaged", "started_anew"]


def test_a_state_that_the_core_refuses_does_not_fail_the_job(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit, tmp_path: Path
) -> None:
    job_id = submit(distill="save_and_crash", resume="refuse", marker=str(tmp_path / "once"))
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert student(service, storage, job_id) == "a student"
    assert codes(service, job_id) == ["started_anew"]


def test_a_file_that_does_not_change_is_stored_once(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit
) -> None:
    job_id = submit(distill="save_often")
    supervisor.run_jobs("inspect")
    thread = threading.Thread(target=supervisor.run_jobs, args=("distill",))
    thread.start()
    wait_for_status(service, job_id, JobStatus.SUCCEEDED)
    thread.join(30)
    assert len(event_data(service, job_id, "checkpoint")) >= 2
    # Nothing was swept yet.
    bodies = [b"".join(storage.open_range(entry.key)) for entry in storage.list("checkpoints")]
    assert bodies.count(b"never changes") == 1
    assert len(bodies) == 1 + len(event_data(service, job_id, "checkpoint"))


def test_a_pause_keeps_the_state_and_costs_nothing(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit, tmp_path: Path
) -> None:
    job_id = submit(distill="steps", marker=str(tmp_path / "once"))
    supervisor.run_jobs("inspect")
    thread = threading.Thread(target=supervisor.run_jobs, args=("distill",))
    thread.start()
    wait_for_steps(service, job_id)
    service.clients.pause(job_id)
    wait_for_status(service, job_id, JobStatus.PAUSED)
    thread.join(30)
    supervisor.run_jobs("distill")
    assert service.clients.get(job_id).status is JobStatus.PAUSED
    service.clients.resume(job_id)
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert student(service, storage, job_id).startswith("a student from step")


def test_a_job_that_is_being_paused_can_still_be_cancelled(
    service: Services, supervisor: Supervisor, submit: Submit
) -> None:
    job_id = submit(distill="stubborn")
    supervisor.run_jobs("inspect")
    thread = threading.Thread(target=supervisor.run_jobs, args=("distill",))
    thread.start()
    wait_for_steps(service, job_id)
    service.clients.pause(job_id)
    assert service.clients.cancel(job_id).cancel_requested
    wait_for_status(service, job_id, JobStatus.CANCELLED, seconds=5)
    thread.join(30)


def test_a_store_outage_delays_a_pause_for_a_limited_time(
    service: Services, storage: Storage, settings: Settings, submit: Submit
) -> None:
    supervisor = Supervisor(settings.model_copy(update={"drain_seconds": 2.0}), FLOWS, FAKE_CORE)
    job_id = submit(distill="steps")
    supervisor.run_jobs("inspect")
    thread = threading.Thread(target=supervisor.run_jobs, args=("distill",))
    thread.start()
    wait_for_steps(service, job_id)
    Path(settings.storage_url.removeprefix("file://"), "checkpoints").touch()  # no folder can be there
    service.clients.pause(job_id)
    wait_for_status(service, job_id, JobStatus.PAUSED)
    thread.join(30)
    assert event_data(service, job_id, "checkpoint") == []
    supervisor.close()
