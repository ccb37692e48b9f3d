"""The supervisor in this process, over real parts, with a core that misbehaves on request."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cli.local.embedded import EmbeddedPostgres
from jobs.files.store import Storage
from jobs.kinds import VALIDATE
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.support.services import Services
from tests.worker.conftest import FAKE_CORE, Submit, wait_for, wait_for_status, wait_for_steps
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS


@contextmanager
def running_jobs(supervisor: Supervisor, queue: str = "distill") -> Iterator[threading.Thread]:
    thread = threading.Thread(target=supervisor.run_jobs, args=(queue,))
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


def stored_under(storage: Storage, folder: str) -> list[bytes]:
    return [b"".join(storage.open_range(entry.key)) for entry in storage.list(folder)]


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "fake_core.py" in str(child.cmdline())]


def test_a_job_passes_both_queues_and_its_files_are_stored(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit, settings: Settings
) -> None:
    job_id = submit()
    supervisor.run_jobs("inspect")
    assert service.clients.get(job_id).status is JobStatus.QUEUED
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt, job.error) == (JobStatus.SUCCEEDED, 1, None)
    artifacts = {artifact.name: artifact for artifact in service.clients.get(job_id).artifacts}
    assert set(artifacts) == {"report.json", "student.safetensors", "model_card.json"}
    assert b"".join(storage.open_range(artifacts["student.safetensors"].key)) == b"a student"
    assert job.report is not None
    assert job.report["text_encoder"]["text_encoder"] == "file"
    assert job.latest_metrics == {
        "kl": 1.0,
        "student_accuracy": 0.5,
        "student_accuracy_bounds_lower": 0.4,
        "student_accuracy_bounds_upper": 0.6,
    }
    assert job.quality is not None
    assert job.quality["estimated_agreement"]["basis"] == "unknown: nothing was measured"
    phases = [event.data["phase"] for event in service.clients.events(job_id) if event.type == "phase"]
    assert phases == ["inspect", "distill"]
    assert settings.scratch_dir is not None
    assert [path for path in settings.scratch_dir.glob("worker-*/*") if path.is_dir()] == []


def test_the_core_sees_no_secret_and_imports_nothing_from_the_jobs_folder(
    service: Services,
    storage: Storage,
    supervisor: Supervisor,
    submit: Submit,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAYER_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "seeded-secret")
    job_id = submit()
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    text = b"".join(storage.open_range(service.clients.artifact(job_id, "model_card.json").key)).decode()
    card = json.loads(text)
    for secret in ("seeded-secret", settings.database_url, settings.redis_url, "NAYER_", "AWS_"):
        assert secret not in text
    assert card["environment"]["HF_HUB_OFFLINE"] == "1"
    assert card["folder"] not in card["path"]
    assert "" not in card["path"]


def test_a_validation_ends_after_inspection(
    service: Services, supervisor: Supervisor, submit: Submit
) -> None:
    job_id = submit(kind=VALIDATE)
    supervisor.run_jobs("inspect")
    job = service.clients.get(job_id)
    assert job.status is JobStatus.SUCCEEDED
    assert job.report is not None
    assert job.report["architecture"] == "resnet20"


def test_labels_are_embedded_once_and_every_job_reports_the_encoder(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit
) -> None:
    jobs = [submit(inspect="no_embeddings"), submit(inspect="no_embeddings")]
    supervisor.run_jobs("inspect")
    for job_id in jobs:
        job = service.clients.get(job_id)
        assert job.status is JobStatus.QUEUED
        assert job.resolved is not None
        assert job.report is not None
        assert job.resolved["text_encoder"]["name"] == "sbert"
        assert job.report["warnings"] == [{"code": "text_encoder_fallback", "message": "MiniLM it is."}]
        log = [(event.type, event.data) for event in service.clients.events(job_id)]
        assert ("phase", {"phase": "embed"}) in log
        assert ("warning", job.report["warnings"][0]) in log
    # Each run of the fake `embed` writes other bytes.
    embeddings = [body for body in stored_under(storage, "inputs") if len(body) == 8]
    assert len(embeddings) == 2
    assert len(set(embeddings)) == 1


@pytest.mark.parametrize("behaviour", ["killed", "hang"])
def test_uploads_that_crash_their_reader_are_rejected(
    service: Services, supervisor: Supervisor, submit: Submit, behaviour: str
) -> None:
    job_id = submit(inspect=behaviour)
    supervisor.run_jobs("inspect")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 1)
    assert job.error is not None
    assert job.error["code"] == "teacher_rejected"
    assert job.error["hint"]
    assert children() == []


@pytest.mark.parametrize("queue", ["inspect", "distill"])
def test_a_refusal_of_the_core_reaches_the_client_unchanged(
    service: Services, supervisor: Supervisor, submit: Submit, queue: str
) -> None:
    job_id = submit(**{queue: "refuse"})
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert job.status is JobStatus.FAILED
    assert job.error == {
        "code": "diverged",
        "message": "The loss is not a number.",
        "hint": "Lower the rate.",
        "retryable": False,
    }


def test_the_partial_student_of_a_diverged_run_can_be_downloaded(
    service: Services, storage: Storage, supervisor: Supervisor, submit: Submit
) -> None:
    job_id = submit(distill="diverge")
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error["code"], job.attempt) == ("diverged", 1)
    bodies = {artifact.name: b"".join(storage.open_range(artifact.key)) for artifact in job.artifacts}
    assert bodies["partial_student.safetensors"] == b"half a student"
    assert "student.safetensors" not in bodies
    assert b'"step": 1' in bodies["metrics.jsonl"]
    log = [
        event.data.get("code")
        for event in service.clients.events(job_id)
        if event.type in ("warning", "error")
    ]
    assert log[-2:] == ["rolled_back", "diverged"]


@pytest.mark.parametrize(
    "behaviour", ["exit_1", "killed", "silent_exit_0", "silent_exit_2", "unasked_exit_3", "hang"]
)
def test_one_crash_of_the_core_costs_one_attempt(
    service: Services, supervisor: Supervisor, submit: Submit, tmp_path: Path, behaviour: str
) -> None:
    job_id = submit(distill=behaviour, marker=str(tmp_path / "once"))
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt, job.fence) == (JobStatus.SUCCEEDED, 2, 3)


@pytest.mark.parametrize("queue", ["inspect", "distill"])
def test_a_job_whose_core_always_crashes_fails_after_its_last_attempt(
    service: Services, supervisor: Supervisor, submit: Submit, queue: str
) -> None:
    job_id = submit(**{queue: "exit_1"})
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 3)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


@pytest.mark.parametrize("behaviour", ["garbage", "flood"])
def test_output_outside_the_contract_does_no_harm(
    service: Services, supervisor: Supervisor, submit: Submit, behaviour: str
) -> None:
    job_id = submit(distill=behaviour)
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    assert service.clients.get(job_id).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("behaviour", ["steps", "stubborn", "hang"])
def test_cancel_takes_effect_within_five_seconds_in_the_middle_of_a_step(
    service: Services, supervisor: Supervisor, submit: Submit, behaviour: str
) -> None:
    job_id = submit(distill=behaviour)
    supervisor.run_jobs("inspect")
    with running_jobs(supervisor):
        wait_for_status(service, job_id, JobStatus.RUNNING)
        wait_for(children)
        asked_at = time.monotonic()
        service.clients.cancel(job_id)
        wait_for_status(service, job_id, JobStatus.CANCELLED)
        assert time.monotonic() - asked_at < 5
    assert children() == []


@pytest.mark.parametrize(("end", "gets_sigterm"), [("cancel", False), ("limit", False), ("pause", True)])
def test_a_core_gets_time_to_save_its_state_only_where_the_job_continues_later(
    service: Services, supervisor: Supervisor, submit: Submit, tmp_path: Path, end: str, gets_sigterm: bool
) -> None:
    limit = 3 if end == "limit" else None
    marker = tmp_path / "sigterm"
    job_id = submit(distill="steps", max_runtime_seconds=limit, sigterm_marker=str(marker))
    supervisor.run_jobs("inspect")
    with running_jobs(supervisor):
        wait_for_steps(service, job_id)
        if end == "cancel":
            service.clients.cancel(job_id)
        if end == "pause":
            service.clients.pause(job_id)
    status = {"cancel": JobStatus.CANCELLED, "limit": JobStatus.FAILED, "pause": JobStatus.PAUSED}[end]
    assert service.clients.get(job_id).status is status
    assert marker.exists() == gets_sigterm
    assert children() == []


def test_a_job_ends_at_its_own_limit(service: Services, supervisor: Supervisor, submit: Submit) -> None:
    job_id = submit(distill="stubborn", max_runtime_seconds=2)
    supervisor.run_jobs("inspect")
    supervisor.run_jobs("distill")
    job = service.clients.get(job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "max_runtime_exceeded"
    assert "2" in job.error["message"]
    assert job.error["hint"]


@pytest.mark.parametrize("behaviour", ["steps", "stubborn"])
def test_a_drain_releases_the_job_and_costs_no_attempt(
    service: Services, settings: Settings, submit: Submit, behaviour: str
) -> None:
    supervisor = Supervisor(settings.model_copy(update={"drain_seconds": 2.0}), FLOWS, FAKE_CORE)
    job_id = submit(distill=behaviour)
    supervisor.run_jobs("inspect")
    with running_jobs(supervisor):
        wait_for_steps(service, job_id)
        supervisor.drain.request()
    job = service.clients.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
    supervisor.close()


def test_no_event_is_lost_while_the_database_is_away(
    service: Services, supervisor: Supervisor, submit: Submit, postgres: EmbeddedPostgres
) -> None:
    job_id = submit(distill="few_steps")
    supervisor.run_jobs("inspect")
    with running_jobs(supervisor):
        wait_for_steps(service, job_id)
        postgres.kill()
        time.sleep(1.5)  # under the lease; the core computes on
        postgres.start()
        wait_for_status(service, job_id, JobStatus.SUCCEEDED)
    steps = [
        event.data["step"] for event in service.clients.events(job_id, limit=500) if event.type == "metrics"
    ]
    assert steps == [*range(1, 31), 1]
    assert service.clients.get(job_id).attempt == 1


def test_a_store_that_changes_bytes_cannot_make_a_student(
    service: Services, submit: Submit, settings: Settings
) -> None:
    supervisor = Supervisor(settings.model_copy(update={"max_attempts": 1}), FLOWS, FAKE_CORE)
    job_id = submit()
    supervisor.run_jobs("inspect")
    folder = Path(settings.storage_url.removeprefix("file://")) / "inputs"
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    supervisor.run_jobs("distill")
    assert service.clients.get(job_id).status is JobStatus.FAILED
    supervisor.close()
