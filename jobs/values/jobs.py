"""Jobs: as they are requested, listed and read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypedDict

from jobs.states import JobStatus
from jobs.values.files import Artifact, StoredFile
from jobs.values.kinds import JobKind
from nayer_core.contract.spec import JobSpec


@dataclass(frozen=True)
class NewJob:
    """A request for a job whose files are already in the store.

    Args:
        kind: the kind of the job.
        spec: the document of the request.
        uploads: its files by the name of their part in `kind.uploads`.
        request_hash: a digest of the whole request; needed with `idempotency_key`, to distinguish a
            repeated request from another one that uses the same key.
    """

    kind: JobKind
    spec: JobSpec
    uploads: Mapping[str, StoredFile]
    idempotency_key: str | None = None
    request_hash: str | None = None

    def __post_init__(self) -> None:
        if (self.idempotency_key is None) != (self.request_hash is None):
            raise ValueError("idempotency_key and request_hash go together: give both or neither")


class Failure(TypedDict):
    """Why a job failed."""

    code: str
    message: str
    hint: str
    retryable: bool


class PhaseSpan(TypedDict):
    """A part of the work; times are ISO 8601 in UTC."""

    phase: str
    started_at: str
    ended_at: str | None  # while it is open


class ProgressReport(TypedDict, total=False):
    """How far the present phase is; empty before the first report."""

    phase: str
    epoch: int
    epochs: int
    fraction: float
    eta_seconds: float | None
    updated_at: str


def summarise(spec: Mapping[str, Any], resolved: Mapping[str, Any] | None) -> dict[str, Any]:
    """Extract `JobSummary.summary`, the values that a list shows, from the documents of a job."""
    teacher = (resolved or {}).get("teacher_architecture") or spec["teacher"]["architecture"]
    return {
        "num_classes": len(spec["labels"]),
        "input_size": spec["teacher"]["input_size"],
        "teacher_architecture": teacher,
        "student_architecture": spec["student"]["architecture"],
        "preset": spec["preset"],
        "metadata": spec["metadata"],
        "webhook": spec.get("webhook") is not None,
    }


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """A job in a list. Its size is bounded, however large the spec is.

    Args:
        phase: the last part of the work that began (`contract.events.Phase`); None before the first.
        summary: {"num_classes", "input_size", "teacher_architecture", "student_architecture", "preset",
            "metadata", "webhook"}. The teacher's architecture is "auto" until inspected; `webhook` is True
            if the job has one. It is {} if a release without summaries wrote the job, until inspected.
        latest_metrics: the newest value of each metric.
        quality: {"estimated_agreement": {"value", "low", "high", "basis"}} once there is a student.
        error: of a failed job.
        uploads: the files of the request by the name of their part.
        attempt: 1 at first; rises when a worker is lost, crashes or hangs, never at a drain.
        version: rises at every visible change; the ETag.
    """

    id: str
    status: JobStatus
    phase: str | None
    kind: JobKind
    summary: dict[str, Any]
    progress: ProgressReport
    latest_metrics: dict[str, float]
    quality: dict[str, Any] | None
    error: Failure | None
    uploads: dict[str, StoredFile]
    attempt: int
    cancel_requested: bool
    pause_requested: bool
    version: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    artifacts: list[Artifact] = field(default_factory=list)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.status.is_terminal

    def artifacts_expire_at(self, keep_seconds: float | None) -> datetime | None:
        """The end of the time for downloads of artifacts; None if there is no end, or it is not known yet.

        Args:
            keep_seconds: the setting `keep_artifacts_seconds`.
        """
        if self.finished_at is None or keep_seconds is None:
            return None
        return self.finished_at + timedelta(seconds=keep_seconds)


@dataclass(frozen=True, kw_only=True)
class Job(JobSummary):
    """A job at one `version`.

    Args:
        spec: the spec of the request, with its preset named and expanded; a valid `JobSpec` document.
        resolved: the `ResolvedSpec` document, once inspection has made it.
        report: the results of `inspect` and `embed`: the `report.json` of the core program.
        timeline: [{"phase", "started_at", "ended_at"}] in order; ISO 8601 in UTC, `ended_at` None while open.
        fence: rises at every claim; each write of a worker is checked against it.
    """

    spec: dict[str, Any]
    resolved: dict[str, Any] | None
    report: dict[str, Any] | None
    timeline: list[PhaseSpan]
    fence: int
    lease_until: datetime | None
    max_runtime_seconds: int | None
    metadata: dict[str, str]
