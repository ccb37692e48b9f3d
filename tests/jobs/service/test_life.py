"""The life of a job, in its row, its log and its files."""

from typing import Any

import pytest

from jobs.errors import ArtifactNotFound, ArtifactNotReady, JobNotFound, JobNotTerminal
from jobs.kinds import DISTILL, VALIDATE
from jobs.states import JobStatus
from jobs.values.claims import StageResult
from jobs.values.jobs import NewJob
from nayer_core.contract.events import (
    CheckpointEvent,
    FinishedEvent,
    MetricsEvent,
    Phase,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)
from nayer_core.contract.spec import JobSpec
from tests.support.jobs import a_file, a_request, a_spec, an_artifact, claimed, inspected, running, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")


def log_of(service: Services, job_id: str) -> list[tuple[str, Any]]:
    return [
        (event.type, event.data.get("status") or event.data.get("phase") or event.data.get("name"))
        for event in service.clients.events(job_id)
    ]


def test_a_new_job_waits_for_inspection(service: Services) -> None:
    request = a_request(
        uploads={"teacher": a_file(), "evaluation": a_file()},
        spec=a_spec(metadata={"run": "7"}, max_runtime_seconds=60),
    )
    job, is_replay = service.clients.submit(request)

    assert not is_replay
    assert job == service.clients.get(job.id)
    assert (job.status, job.phase, job.attempt, job.fence) == (JobStatus.VALIDATING, None, 1, 0)
    assert job.uploads == request.uploads
    assert (job.metadata, job.max_runtime_seconds) == ({"run": "7"}, 60)
    assert (job.started_at, job.finished_at, job.error, job.artifacts) == (None, None, None, [])
    assert log_of(service, job.id) == [("status", "validating")]


def test_the_spec_is_kept_with_its_preset_named_and_expanded(service: Services) -> None:
    spec = a_spec(preset="quick", config={"epochs": 3})
    document = submitted(service, spec=spec).spec

    assert document["preset"] == "quick"
    assert document["config"] == spec.resolved_config()[1].model_dump(mode="json")
    assert document["config"]["epochs"] == 3
    assert JobSpec.model_validate(document).resolved_config() == spec.resolved_config()


def test_a_job_ends_with_its_student(service: Services) -> None:
    job = submitted(service)
    inspection = claimed(service, "inspect", job)
    assert (inspection.job.status, inspection.fence) == (JobStatus.VALIDATING, 1)
    assert service.clients.get(job.id).started_at is not None
    inputs = {"teacher.safetensors": a_file("inputs/a"), "lte.safetensors": a_file("inputs/b")}
    waiting = service.workers.end_stage(
        inspection,
        StageResult(resolved={"preset": "quick"}, report={"architecture": "resnet20"}, inputs=inputs),
    )
    assert (waiting.status, waiting.lease_until) == (JobStatus.QUEUED, None)
    assert (waiting.resolved, waiting.report) == ({"preset": "quick"}, {"architecture": "resnet20"})

    distilling = claimed(service, "distill", job)
    assert (distilling.job.status, distilling.fence) == (JobStatus.RUNNING, 2)
    assert service.workers.inputs(distilling) == inputs
    student, card = an_artifact(), an_artifact("model_card.json")
    ended_job = service.workers.end_stage(
        distilling,
        StageResult(artifacts=[student, card], metrics={"student_accuracy": 0.9, "odd": float("nan")}),
    )

    assert ended_job == service.clients.get(job.id)
    assert (ended_job.status, ended_job.lease_until, ended_job.is_terminal) == (
        JobStatus.SUCCEEDED,
        None,
        True,
    )
    assert ended_job.latest_metrics == {"student_accuracy": 0.9}
    assert ended_job.finished_at is not None
    assert [(a.name, a.key, a.job_id) for a in service.clients.get(job.id).artifacts] == [
        ("model_card.json", card.key, job.id),
        ("student.safetensors", student.key, job.id),
    ]
    assert service.clients.artifact(job.id, "student.safetensors").media_type == "application/octet-stream"
    assert log_of(service, job.id) == [
        ("status", "validating"),
        ("status", "queued"),
        ("status", "running"),
        ("artifact", "student.safetensors"),
        ("artifact", "model_card.json"),
        ("status", "succeeded"),
    ]


def test_a_validation_is_taken_first_and_ends_with_its_report(service: Services) -> None:
    submitted(service)
    dry = submitted(service, kind=VALIDATE)

    ended_job = service.workers.end_stage(
        claimed(service, "inspect", dry), StageResult(report={"candidates": ["resnet20"]})
    )

    assert (ended_job.status, ended_job.report) == (JobStatus.SUCCEEDED, {"candidates": ["resnet20"]})
    assert service.workers.claim("distill", "tests") is None


def test_a_failed_job_has_its_reason(service: Services) -> None:
    job = submitted(service)
    claim = claimed(service, "inspect", job)
    service.workers.fail(claim, "not_a_checkpoint", "\0 odd bytes", "Send a state_dict.", retryable=True)

    ended_job = service.clients.get(job.id)
    assert ended_job.status == JobStatus.FAILED
    error = {"code": "not_a_checkpoint", "message": "\0 odd bytes", "hint": "Send a state_dict."}
    assert ended_job.error == {**error, "retryable": True}
    assert [event.data for event in service.clients.events(job.id) if event.type == "error"] == [
        ended_job.error
    ]
    assert ended_job.uploads["teacher"].filename == "teacher.pt"


def test_the_oldest_job_is_taken_first_and_knows_its_place(service: Services) -> None:
    jobs = [submitted(service) for _ in range(3)]
    first, second, third = (job.id for job in jobs)
    assert service.clients.queue_positions(jobs) == {first: 1, second: 2, third: 3}
    assert service.clients.queue_positions(jobs[2:]) == {third: 3}

    claimed(service, "inspect", jobs[0])
    assert service.clients.queue_positions(jobs) == {second: 1, third: 2}

    service.clients.cancel(second)
    assert service.clients.queue_positions(jobs) == {third: 1}


def test_one_query_finds_the_places_in_both_queues(service: Services, statements: list[str]) -> None:
    jobs = [inspected(service), inspected(service), submitted(service), submitted(service, kind=VALIDATE)]
    statements.clear()
    places = service.clients.queue_positions(jobs)
    assert [places[job.id] for job in jobs] == [1, 2, 2, 1]
    assert len([statement for statement in statements if "job" in statement]) == 1
    statements.clear()
    assert service.clients.queue_positions([service.clients.cancel(job.id) for job in jobs]) == {}
    assert not [statement for statement in statements if "row_number" in statement]


def test_the_events_of_a_child_reach_job_log_and_series(service: Services) -> None:
    claim = running(service)
    service.workers.record(
        claim,
        [
            (1, PhaseEvent(phase=Phase.WARMUP)),
            (2, ProgressEvent(phase=Phase.WARMUP, epoch=1, epochs=4, fraction=0.1)),
            (3, ProgressEvent(phase=Phase.WARMUP, epoch=2, epochs=4, fraction=0.4, eta_seconds=60)),
            (4, PhaseEvent(phase=Phase.DISTILL)),
            (5, MetricsEvent(epoch=3, step=100, values={"student_loss": 2.0, "bad": float("inf")})),
            (6, MetricsEvent(epoch=3, step=200, values={"student_loss": 1.0})),
            (7, WarningEvent(code="slow", message="This takes long.")),
            (8, CheckpointEvent(epoch=3, step=200, files={"student": "0" * 64})),
            (9, FinishedEvent(command="distill", result={})),
        ],
    )
    job = service.clients.get(claim.job.id)

    assert job.phase == "distill"
    assert [part["phase"] for part in job.timeline] == ["warmup", "distill"]
    assert job.timeline[0]["ended_at"] == job.timeline[1]["started_at"]
    assert job.timeline[1]["ended_at"] is None
    assert {**job.progress, "updated_at": None} == {
        "phase": "warmup",
        "epoch": 2,
        "epochs": 4,
        "fraction": 0.4,
        "eta_seconds": 60,
        "updated_at": None,
    }
    assert job.latest_metrics == {"student_loss": 1.0}
    events = service.clients.events(job.id, after=3)
    assert [event.type for event in events] == [
        "phase",
        "progress",
        "phase",
        "metrics",
        "metrics",
        "warning",
    ], "a checkpoint is reported when it is safe in the store"
    assert events[3].data == {"epoch": 3, "step": 100, "values": {"student_loss": 2.0, "bad": None}}
    points = service.clients.metrics(job.id)["student_loss"]
    assert [(point.step, point.epoch, point.value) for point in points] == [(100, 3, 2.0), (200, 3, 1.0)]

    ended_job = service.workers.end_stage(claim, StageResult())
    assert ended_job.progress["fraction"] == 1.0
    assert all(part["ended_at"] for part in ended_job.timeline)


def test_a_repeated_line_is_written_once(service: Services) -> None:
    claim = running(service)
    lines = [(n, WarningEvent(code="w", message=str(n))) for n in range(1, 6)]
    service.workers.record(claim, lines[:3])
    service.workers.record(claim, lines)

    warnings = [event for event in service.clients.events(claim.job.id) if event.type == "warning"]
    assert [event.data["message"] for event in warnings] == ["1", "2", "3", "4", "5"]


def test_a_resumed_run_writes_its_steps_again(service: Services) -> None:
    claim = running(service)
    service.workers.record(claim, [(1, MetricsEvent(epoch=1, step=10, values={"loss": 3.0}))])
    service.workers.release(claim, counts_attempt=False, reason="the worker was stopped")
    again = claimed(service, "distill", claim.job)
    service.workers.record(again, [(1, MetricsEvent(epoch=1, step=10, values={"loss": 2.0}))])

    (point,) = service.clients.metrics(claim.job.id)["loss"]
    assert point.value == 2.0
    assert sum(event.type == "metrics" for event in service.clients.events(claim.job.id)) == 2


def test_every_visible_change_makes_a_new_version(service: Services) -> None:
    claim = running(service)

    def version_after(change: Any) -> int:
        change()
        return service.clients.get(claim.job.id).version

    before = service.clients.get(claim.job.id).version
    assert version_after(lambda: service.workers.heartbeat(claim)) == before
    changes = [
        lambda: service.workers.record(claim, [(1, WarningEvent(code="w", message="m"))]),
        lambda: service.workers.add_artifact(claim, an_artifact("samples.png")),
        lambda: service.clients.cancel(claim.job.id),
        lambda: service.workers.release(claim, counts_attempt=True, reason="it crashed"),
    ]
    versions = [before, *(version_after(change) for change in changes)]
    assert versions == sorted(set(versions))


def test_an_artifact_is_replaced_by_a_newer_one_of_its_name(service: Services) -> None:
    claim = running(service)
    old, new = an_artifact("samples.png"), an_artifact("samples.png")
    service.workers.add_artifact(claim, old)
    service.workers.add_artifact(claim, new)
    assert [artifact.key for artifact in service.clients.get(claim.job.id).artifacts] == [new.key]


def test_an_artifact_is_not_ready_until_the_end_and_then_not_there(service: Services) -> None:
    claim = running(service)
    with pytest.raises(ArtifactNotReady, match="running"):
        service.clients.artifact(claim.job.id, "student.safetensors")
    service.workers.cancel(claim)
    with pytest.raises(ArtifactNotFound, match="cancelled"):
        service.clients.artifact(claim.job.id, "student.safetensors")


@pytest.mark.parametrize("job_id", ["", "x", "0" * 32, "\0", "' OR 1=1", "é" * 32, "0" * 10_000])
def test_any_string_may_be_passed_as_an_id(service: Services, job_id: str) -> None:
    clients = service.clients
    for ask in (clients.get, clients.cancel, clients.delete, clients.events, clients.metrics):
        with pytest.raises(JobNotFound) as failure:
            ask(job_id)
        assert len(failure.value.message) < 200
    with pytest.raises(JobNotFound):
        service.clients.list_jobs(after=job_id)


def test_jobs_are_listed_page_by_page(service: Services) -> None:
    jobs = [submitted(service).id for _ in range(5)]
    service.clients.cancel(jobs[2])

    first = service.clients.list_jobs(limit=2)
    second = service.clients.list_jobs(limit=2, after=first.next)
    third = service.clients.list_jobs(limit=2, after=second.next)
    pages = [[job.id for job in page.jobs] for page in (first, second, third)]
    assert pages == [[jobs[4], jobs[3]], [jobs[2], jobs[1]], [jobs[0]]]
    assert (first.has_more, second.has_more, third.has_more, third.next) == (True, True, False, None)

    page = service.clients.list_jobs(status=JobStatus.CANCELLED)
    assert ([job.id for job in page.jobs], page.has_more) == ([jobs[2]], False)


def test_new_events_of_many_jobs_come_at_once(service: Services) -> None:
    first, second = submitted(service), submitted(service)
    service.clients.cancel(second.id)

    events = service.clients.events_of_many({first.id: 0, second.id: 1, "0" * 32: 0})
    assert {(event.job_id, event.seq) for event in events} == {(first.id, 1), (second.id, 2)}
    assert service.clients.events_of_many({}) == []
    assert len(service.clients.events_of_many({first.id: 0, second.id: 0}, limit=2)) == 2


def test_deleting_a_job_returns_the_files_that_no_job_needs(service: Services) -> None:
    claim = running(service)
    shared_artifact = an_artifact("samples.png")
    service.workers.add_artifact(claim, shared_artifact)
    with pytest.raises(JobNotTerminal, match="running"):
        service.clients.delete(claim.job.id)
    service.workers.end_stage(claim, StageResult(artifacts=[student := an_artifact()]))
    other = running(service)
    service.workers.add_artifact(other, shared_artifact)

    keys = service.clients.delete(claim.job.id)

    assert student.key in keys
    assert claim.job.uploads["teacher"].key in keys
    assert shared_artifact.key not in keys
    with pytest.raises(JobNotFound):
        service.clients.get(claim.job.id)


def test_labels_may_hold_any_character(service: Services) -> None:
    labels = ("a\0b", "日本語", "\U0001f600", '"quoted"', "\\u0000")
    job = submitted(service, spec=a_spec(labels=labels))
    assert tuple(service.clients.get(job.id).spec["labels"]) == labels


@pytest.mark.parametrize(
    ("filename", "expected"),
    [("a\0b.pt", "ab.pt"), ("\udc80.pt", "?.pt"), ("", None), ("x" * 999, "x" * 255)],
)
def test_a_file_name_is_kept_as_far_as_it_can_be_shown(
    service: Services, filename: str, expected: str
) -> None:
    assert (
        submitted(service, uploads={"teacher": a_file(filename=filename)}).uploads["teacher"].filename
        == expected
    )


def test_a_key_without_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="go together"):
        NewJob(kind=DISTILL, spec=a_spec(), uploads={"teacher": a_file()}, idempotency_key="k")


def test_embeddings_are_stored_once(service: Services) -> None:
    assert service.workers.find_embedding("k") is None
    first, second = a_file("embeddings/1"), a_file("embeddings/2")
    assert service.workers.save_embedding("k", first) == first
    assert service.workers.save_embedding("k", second) == first
    assert service.workers.find_embedding("k") == first


def test_inspected_jobs_wait_for_distillers_only(service: Services) -> None:
    inspected(service)
    assert service.workers.claim("inspect", "tests") is None
