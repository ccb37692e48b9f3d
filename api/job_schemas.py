"""What the API answers of jobs: whole documents, and the bounded ones of lists."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import EXAMPLE_ID, EXAMPLE_SHA256, SPEC_EXAMPLE
from jobs.states import JobStatus
from nayer_core.contract.artifacts import STUDENT


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


class ArtifactList(BaseModel):
    """The files a job made."""

    data: list[ArtifactBody]


class LatestMetrics(BaseModel):
    """The last value of each series."""

    latest: dict[str, float]


class _JobFields(BaseModel):
    """What a job and its line in a list have in common."""

    id: str
    status: JobStatus
    phase: str | None = Field(
        description="inspect, embed, warmup, distill or evaluate; null before and after."
    )
    is_terminal: bool
    kind: str = Field(description="distill, or validate: a job that ends after inspection.")
    dry_run: bool = Field(description="Whether the kind is validate.")
    progress: Progress
    queue_position: int | None = Field(description="1 is next; null where the job does not wait.")
    attempt: int = Field(description="1 at first; one more for each crash, hang or lost machine.")
    cancel_requested: bool
    pause_requested: bool = Field(description="A running job is about to be paused.")
    files: dict[str, UploadedFile] = Field(description="The optional uploads: evaluation, embeddings.")
    metrics: LatestMetrics
    error: JobError | None
    artifacts: list[ArtifactBody]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class JobBody(_JobFields):
    """One job. `is_terminal` says whether anything can still change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "status": "running",
                    "phase": "distill",
                    "is_terminal": False,
                    "kind": "distill",
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

    timeline: list[TimelineEntry]
    spec: dict[str, Any] = Field(description="As asked, with the preset expanded.")
    resolved: dict[str, Any] | None = Field(description="What 'auto' came to; null until inspected.")
    teacher: dict[str, Any] = Field(description="The uploaded file, and what inspection found in it.")


class SpecSummary(BaseModel):
    """What a list tells of a job's spec; its labels, which may have megabytes, are counted.

    All null for a job that was submitted while the service was being upgraded to these summaries.
    """

    num_classes: int | None = None
    input_size: list[int] | None = Field(None, description="(channels, height, width) in pixels.")
    teacher_architecture: str | None = Field(None, description="'auto' until inspected.")
    student_architecture: str | None = None
    preset: str | None = None
    metadata: dict[str, str] | None = None
    webhook: bool | None = Field(None, description="Whether the job has a web hook.")


class JobSummaryBody(_JobFields):
    """One job of a list: without the documents that may be large, which `links.self` leads to."""

    summary: SpecSummary
    teacher: UploadedFile


class JobPage(BaseModel):
    """Jobs, newest first. `next` is the value of `after` for the following page."""

    data: list[JobSummaryBody]
    has_more: bool
    next: str | None
