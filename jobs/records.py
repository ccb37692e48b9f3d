"""What the rooms hand each other about jobs: frozen values, free of the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from jobs.deliveries import DeliveryStatus
from jobs.states import JobStatus, QueueName
from nayer_core.contract.artifacts import METRICS, MODEL_CARD, PARTIAL_STUDENT, REPORT, SAMPLES, STUDENT
from nayer_core.contract.spec import JobSpec

EventType = Literal[
    "status", "phase", "progress", "warning", "metrics", "artifact", "error", "checkpoint", "bank"
]

# The artifacts a job may have, and how each is served.
ARTIFACT_MEDIA_TYPES = {
    STUDENT: "application/octet-stream",
    PARTIAL_STUDENT: "application/octet-stream",
    MODEL_CARD: "application/json",
    METRICS: "application/x-ndjson",
    SAMPLES: "image/png",
    REPORT: "application/json",
}


@dataclass(frozen=True)
class StoredFile:
    """A body that lies finished in the object store.

    Args:
        key: where it lies.
        sha256: lower-case hexadecimal digest of its bytes.
        bytes: its length.
        filename: what the client called it; a label for people, never part of a path.
    """

    key: str
    sha256: str
    bytes: int
    filename: str | None = None


@dataclass(frozen=True)
class NewJob:
    """A request for a student whose files are already in the store.

    Args:
        request_hash: a digest of the whole request; needed with `idempotency_key`, and what tells a
            repeated request from another one that uses the same key.
    """

    spec: JobSpec
    teacher: StoredFile
    evaluation: StoredFile | None = None
    embeddings: StoredFile | None = None
    dry_run: bool = False
    idempotency_key: str | None = None
    request_hash: str | None = None

    def __post_init__(self) -> None:
        if (self.idempotency_key is None) != (self.request_hash is None):
            raise ValueError("idempotency_key and request_hash go together: give both or neither")


@dataclass(frozen=True)
class Artifact:
    """A stored, downloadable file of a job.

    `job_id`, `created_at` and `kept` are filled in when it is read back; a worker leaves them out.
    One that is no longer `kept` was let go some time after the end of its job.
    """

    name: str
    key: str
    sha256: str
    bytes: int
    media_type: str
    job_id: str = ""
    created_at: datetime | None = None
    kept: bool = True

    @classmethod
    def of(cls, name: str, stored: StoredFile) -> "Artifact":
        """Describe a stored file as the artifact `name`, one of `ARTIFACT_MEDIA_TYPES`."""
        return cls(name, stored.key, stored.sha256, stored.bytes, ARTIFACT_MEDIA_TYPES[name])


def summarise(spec: Mapping[str, Any], resolved: Mapping[str, Any] | None) -> dict[str, Any]:
    """Take from the documents of a job what a list shows of them: `JobSummary.summary`."""
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
    """What a list shows of a job: bounded, whatever its spec holds.

    Args:
        phase: the last part of the work that began (`contract.events.Phase`); None before the first.
        summary: {"num_classes", "input_size", "teacher_architecture", "student_architecture", "preset",
            "metadata", "webhook"}: the teacher's is "auto" until inspected, `webhook` says if there is one;
            {} of a job that a service older than these summaries has written and nobody has inspected since.
        progress: {} or {"phase", "fraction", "epoch", "epochs", "eta_seconds", "updated_at"}.
        latest_metrics: the newest value of each metric.
        error: {"code", "message", "hint", "retryable"} of a failed job.
        attempt: 1 at first; rises when a worker is lost, crashes or hangs, never at a drain.
        version: rises at every visible change; the ETag.
    """

    id: str
    status: JobStatus
    phase: str | None
    dry_run: bool
    summary: dict[str, Any]
    progress: dict[str, Any]
    latest_metrics: dict[str, float]
    error: dict[str, Any] | None
    teacher: StoredFile
    evaluation: StoredFile | None
    embeddings: StoredFile | None
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
        """Whether the job has come to its end."""
        return self.status.is_terminal

    def artifacts_expire_at(self, keep_seconds: float | None) -> datetime | None:
        """Until when artifacts can be downloaded; None while that is not known, or for ever.

        Args:
            keep_seconds: the setting `keep_artifacts_seconds`.
        """
        if self.finished_at is None or keep_seconds is None:
            return None
        return self.finished_at + timedelta(seconds=keep_seconds)


@dataclass(frozen=True, kw_only=True)
class Job(JobSummary):
    """A job as it stands at one `version`.

    Args:
        spec: the spec as asked, with its preset named and expanded; a valid `JobSpec` document.
        resolved: the `ResolvedSpec` document, once inspection has made it.
        report: what `inspect` and `embed` found: the `report.json` of the core program.
        timeline: [{"phase", "started_at", "ended_at"}] in order; ISO 8601 in UTC, `ended_at` None while open.
        fence: rises at every claim; what a worker's writes are checked against.
    """

    spec: dict[str, Any]
    resolved: dict[str, Any] | None
    report: dict[str, Any] | None
    timeline: list[dict[str, Any]]
    fence: int
    lease_until: datetime | None
    max_runtime_seconds: int | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class JobEvent:
    """One entry of a job's ordered log; `seq` counts from 1 without gaps.

    `data` by `type`:
        status      {"status", "attempt"} and, where they say more, "cancel_requested",
                    "pause_requested", "reason"
        phase       {"phase"}
        progress    {"phase", "epoch", "epochs", "fraction", "eta_seconds"}
        metrics     {"epoch", "step", "values"}
        warning     {"code", "message"}
        checkpoint  {"epoch", "step"} of a state that is safe in the store; with "resumed": true where
                    a worker goes on from one
        bank        {"images", "made_by", "seed", "sha256"} of the warm-up that a run began with
        artifact    {"name", "bytes", "sha256", "media_type"}
        error       {"code", "message", "hint", "retryable"}
    """

    job_id: str
    seq: int
    type: EventType
    data: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Checkpoint:
    """A state of a run that lies in the store, whole.

    Args:
        fence: of the claim under which it was saved.
        step: generator and student updates together; `epoch` counts from 1, warm-up included.
        files: by the name the core program gave them.
    """

    fence: int
    epoch: int
    step: int
    files: Mapping[str, StoredFile]


@dataclass(frozen=True)
class MetricPoint:
    """One value of a series; `step` counts generator and student updates together."""

    name: str
    step: int
    epoch: int
    value: float
    created_at: datetime


@dataclass(frozen=True)
class Claim:
    """The right of one worker to one job, good as long as nobody was given a higher fence."""

    job: Job
    fence: int
    queue: QueueName


@dataclass(frozen=True)
class Control:
    """What a heartbeat brings back.

    Args:
        lost: the claim is no longer held; kill the child and write nothing more.
        cancel_requested: the client wants the job to end.
        pause_requested: the client wants the job to rest, with its state kept.
        remaining_seconds: what is left of `max_runtime_seconds`, not above zero when it is used up;
            None without a limit.
    """

    lost: bool
    cancel_requested: bool
    pause_requested: bool
    remaining_seconds: float | None


@dataclass(frozen=True)
class JobStatistics:
    """How many jobs there are and how long they wait, at one moment.

    Args:
        counts: jobs in each status; zeros included.
        oldest_waiting_seconds: the age, since it was created, of the oldest job that waits in each queue;
            zero where none does.
        deliveries: messages to web hooks in each state; zeros included.
        expired_leases: jobs whose worker fell silent and that were not taken from it yet.
    """

    counts: Mapping[JobStatus, int]
    oldest_waiting_seconds: Mapping[QueueName, float]
    deliveries: Mapping[DeliveryStatus, int]
    expired_leases: int


@dataclass(frozen=True)
class Page:
    """A page of the list of jobs, newest first; `next` is the `after` of the page that follows."""

    jobs: Sequence[JobSummary]
    has_more: bool
    next: str | None
