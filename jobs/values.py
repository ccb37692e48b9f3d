"""Values about jobs that the rooms exchange: frozen, and free of the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from jobs.states import JobStatus, QueueName
from jobs.webhooks.deliveries import DeliveryStatus
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
    """A complete file in the object store.

    Args:
        key: its place in the store.
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
        request_hash: a digest of the whole request; needed with `idempotency_key`, to distinguish a
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

    `job_id`, `created_at` and `kept` are set when it is read back; a worker leaves them out. The file
    of one that is no longer `kept` was removed some time after the end of its job.
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
    def of(cls, name: str, file: StoredFile) -> "Artifact":
        """Describe a stored file as the artifact `name`, one of `ARTIFACT_MEDIA_TYPES`."""
        return cls(name, file.key, file.sha256, file.bytes, ARTIFACT_MEDIA_TYPES[name])


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


@dataclass(frozen=True)
class Job:
    """A job at one `version`.

    Args:
        phase: the last part of the work that began (`contract.events.Phase`); None before the first.
        spec: the request, with its preset named and expanded; a valid `JobSpec` document.
        resolved: the `ResolvedSpec` document, after inspection.
        report: the `report.json` of the core program, by `inspect` and `embed`.
        timeline: the phases in order.
        latest_metrics: the newest value of each metric.
        error: of a failed job.
        fence: rises at every claim; what a worker's writes are checked against.
        attempt: 1 at first; rises when a worker is lost, crashes or hangs, never at a drain.
        version: rises at every visible change; the ETag.
    """

    id: str
    status: JobStatus
    phase: str | None
    dry_run: bool
    spec: dict[str, Any]
    resolved: dict[str, Any] | None
    report: dict[str, Any] | None
    progress: ProgressReport
    timeline: list[PhaseSpan]
    latest_metrics: dict[str, float]
    error: Failure | None
    teacher: StoredFile
    evaluation: StoredFile | None
    embeddings: StoredFile | None
    fence: int
    lease_until: datetime | None
    attempt: int
    cancel_requested: bool
    pause_requested: bool
    version: int
    max_runtime_seconds: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    metadata: dict[str, str]
    artifacts: list[Artifact] = field(default_factory=list)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.status.is_terminal

    def artifacts_expire_at(self, keep_seconds: float | None) -> datetime | None:
        """Until when artifacts can be downloaded; None without an end, or while it is not known.

        Args:
            keep_seconds: the setting `keep_artifacts_seconds`.
        """
        if self.finished_at is None or keep_seconds is None:
            return None
        return self.finished_at + timedelta(seconds=keep_seconds)


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
                    a worker continues from one
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
    """A complete state of a run in the store.

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
class Bank:
    """A stored warm-up.

    Args:
        file: its place in the store.
        job_id: the job that computed it.
    """

    file: StoredFile
    job_id: str


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
    """The right of one worker to one job, valid as long as no other claim has a higher fence."""

    job: Job
    fence: int
    queue: QueueName


@dataclass(frozen=True)
class Control:
    """The answer to a heartbeat.

    Args:
        lost: the claim is no longer held: kill the child and write nothing more.
        cancel_requested: the client wants the job to end.
        pause_requested: the client wants the job to pause, with its state kept.
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
        expired_leases: jobs whose worker fell silent, and which the reaper has not taken yet.
    """

    counts: Mapping[JobStatus, int]
    oldest_waiting_seconds: Mapping[QueueName, float]
    deliveries: Mapping[DeliveryStatus, int]
    expired_leases: int


@dataclass(frozen=True)
class Page:
    """A page of the list of jobs, newest first; `next` is the `after` of the page that follows."""

    jobs: Sequence[Job]
    has_more: bool
    next: str | None
