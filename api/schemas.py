"""What the API answers: the shapes of its JSON documents, with examples for the reader of OpenAPI."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.states import JobStatus
from nayer_core.contract.artifacts import STUDENT

EXAMPLE_ID = "0198c0de-7a5b-7c3d-8e1f-2a3b4c5d6e7f"
EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

SPEC_EXAMPLE: dict[str, Any] = {
    "labels": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "teacher": {
        "architecture": "auto",
        "input_size": [3, 32, 32],
        "normalization": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616]},
    },
    "student": {"architecture": "wrn_16_1"},
    "preset": "balanced",
    "config": {"epochs": 100},
    "metadata": {"team": "vision"},
}


class Progress(BaseModel):
    """Where the job is; fields are null until they are known."""

    fraction: float | None = Field(None, ge=0, le=1)
    epoch: int | None = None
    epochs: int | None = None
    eta_seconds: float | None = None
    updated_at: datetime | None = None


class TimelineEntry(BaseModel):
    """When a phase began and ended."""

    phase: str
    started_at: datetime
    ended_at: datetime | None = None


class JobError(BaseModel):
    """Why a job failed and what to change."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False


class UploadedFile(BaseModel):
    """A file as it was received. `filename` is what the client called it."""

    filename: str | None
    bytes: int
    sha256: str


class ArtifactBody(BaseModel):
    """A file that a job made, and where to download it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": STUDENT,
                    "bytes": 716_384,
                    "sha256": EXAMPLE_SHA256,
                    "media_type": "application/octet-stream",
                    "created_at": "2026-11-22T10:02:11Z",
                    "expires_at": None,
                    "href": f"/jobs/{EXAMPLE_ID}/artifacts/{STUDENT}",
                }
            ]
        }
    )

    name: str
    bytes: int
    sha256: str
    media_type: str
    created_at: datetime
    expires_at: datetime | None = Field(description="Until when it can be downloaded; null is no limit yet.")
    href: str


class LatestMetrics(BaseModel):
    """The last value of each series."""

    latest: dict[str, float]


class JobBody(BaseModel):
    """One job. `is_terminal` says whether anything can still change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "status": "running",
                    "phase": "distill",
                    "is_terminal": False,
                    "dry_run": False,
                    "progress": {
                        "fraction": 0.42,
                        "epoch": 27,
                        "epochs": 65,
                        "eta_seconds": 1840.0,
                        "updated_at": "2026-11-22T09:41:00Z",
                    },
                    "timeline": [
                        {
                            "phase": "inspect",
                            "started_at": "2026-11-22T09:11:02Z",
                            "ended_at": "2026-11-22T09:11:05Z",
                        },
                        {"phase": "distill", "started_at": "2026-11-22T09:11:40Z", "ended_at": None},
                    ],
                    "queue_position": None,
                    "attempt": 1,
                    "cancel_requested": False,
                    "pause_requested": False,
                    "spec": SPEC_EXAMPLE,
                    "resolved": None,
                    "teacher": {
                        "filename": "teacher.pt",
                        "bytes": 9_012_345,
                        "sha256": EXAMPLE_SHA256,
                        "architecture": "wrn_40_2",
                        "parameters": 2_243_546,
                    },
                    "files": {},
                    "metrics": {"latest": {"student_loss": 0.31}},
                    "error": None,
                    "artifacts": [],
                    "created_at": "2026-11-22T09:11:00Z",
                    "started_at": "2026-11-22T09:11:02Z",
                    "finished_at": None,
                    "links": {"self": f"/jobs/{EXAMPLE_ID}", "events": f"/jobs/{EXAMPLE_ID}/events"},
                }
            ]
        }
    )

    id: str
    status: JobStatus
    phase: str | None = Field(
        description="inspect, embed, warmup, distill or evaluate; null before and after."
    )
    is_terminal: bool
    dry_run: bool
    progress: Progress
    timeline: list[TimelineEntry]
    queue_position: int | None = Field(description="1 is next; null where the job does not wait.")
    attempt: int = Field(description="1 at first; one more for each crash, hang or lost machine.")
    cancel_requested: bool
    pause_requested: bool = Field(description="A running job is about to be paused.")
    spec: dict[str, Any] = Field(description="As asked, with the preset expanded.")
    resolved: dict[str, Any] | None = Field(description="What 'auto' came to; null until inspected.")
    teacher: dict[str, Any] = Field(description="The uploaded file, and what inspection found in it.")
    files: dict[str, UploadedFile] = Field(description="The optional uploads: evaluation, embeddings.")
    metrics: LatestMetrics
    error: JobError | None
    artifacts: list[ArtifactBody]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class JobPage(BaseModel):
    """Jobs, newest first. `next` is the value of `after` for the following page."""

    data: list[JobBody]
    has_more: bool
    next: str | None


class EventBody(BaseModel):
    """One entry of a job's ordered log. `seq` counts from 1 and never repeats."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "seq": 3,
                    "type": "status",
                    "data": {"status": "queued"},
                    "created_at": "2026-11-22T09:11:05Z",
                }
            ]
        }
    )

    seq: int
    type: str = Field(
        description="status, phase, progress, metrics, warning, bank, checkpoint, artifact or error."
    )
    data: dict[str, Any]
    created_at: datetime


class EventPage(BaseModel):
    """Events in order. `next` is the value of `after` that continues, also when nothing is there yet."""

    data: list[EventBody]
    has_more: bool
    next: int


class MetricPointBody(BaseModel):
    """One value of a series."""

    step: int
    epoch: int
    value: float
    created_at: datetime


class MetricsBody(BaseModel):
    """Series by name, each of at most `max_points` points."""

    series: dict[str, list[MetricPointBody]]


class ArtifactList(BaseModel):
    """The files a job made."""

    data: list[ArtifactBody]


class ArchitectureBody(BaseModel):
    """A network that can be a teacher or a student."""

    name: str
    family: str
    notes: str


class ArchitectureList(BaseModel):
    """Networks whose name, family or notes hold what was searched for."""

    data: list[ArchitectureBody]
    total: int


class PresetBody(BaseModel):
    """A named configuration with every value it means."""

    name: str
    summary: str
    config: dict[str, Any]


class PresetList(BaseModel):
    """All presets."""

    data: list[PresetBody]
    default: str


class SchemaBody(BaseModel):
    """JSON Schema 2020-12 of what may be asked, with defaults, limits and sources."""

    job_spec: dict[str, Any]
    distill_config: dict[str, Any]


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Check(BaseModel):
    """Whether one part of the service is there, and how long it took to say so."""

    ok: bool
    latency_ms: float
    detail: str | None = None


class Readiness(BaseModel):
    """Whether requests can be served: every part must be there."""

    ready: bool
    checks: dict[str, Check]


class Version(BaseModel):
    """What runs here."""

    name: str
    version: str
    revision: str | None = Field(description="The commit it was built from, where the build knows.")
