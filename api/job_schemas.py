"""Response bodies for jobs: the whole document of one job, and the bounded summaries of a list."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import EXAMPLE_ID, EXAMPLE_SHA256, SPEC_EXAMPLE
from jobs.states import JobStatus
from nayer_core.contract.artifacts import STUDENT


class Progress(BaseModel):
    """Progress of a job; a field is null until its value is known."""

    fraction: float | None = Field(None, ge=0, le=1)
    epoch: int | None = None
    epochs: int | None = None
    eta_seconds: float | None = None
    updated_at: datetime | None = None


class TimelineEntry(BaseModel):
    """Start and end of one phase."""

    phase: str
    started_at: datetime
    ended_at: datetime | None = None


class JobError(BaseModel):
    """The reason why a job failed, and what to change."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False


class UploadedFile(BaseModel):
    """An uploaded file. `filename` is the client's name for it."""

    filename: str | None
    bytes: int
    sha256: str


class ArtifactBody(BaseModel):
    """A file that a job produced, and its download path."""

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
    expires_at: datetime | None = Field(
        description="End of the time for downloads; null while there is none."
    )
    href: str


class ArtifactList(BaseModel):
    """The files that a job produced."""

    data: list[ArtifactBody]


class LatestMetrics(BaseModel):
    """The last value of each series."""

    latest: dict[str, float]


class EstimatedAgreement(BaseModel):
    """The share of real images on which the student names the teacher's class, with what it is known from.

    The three numbers are null where it is unknown.
    """

    value: float | None = Field(description="In [0, 1].")
    low: float | None = Field(description="Lower end of the 90 % interval.")
    high: float | None = Field(description="Upper end of the 90 % interval.")
    basis: str = Field(
        description="Begins with 'measured:' (on the evaluation images), 'estimated:' (from synthetic "
        "images) or 'unknown:'; then how, or why not."
    )


class Quality(BaseModel):
    """How good the student is."""

    estimated_agreement: EstimatedAgreement


class _JobFields(BaseModel):
    """The fields that a job and its entry in a list share."""

    id: str
    status: JobStatus
    phase: str | None = Field(
        description="The last phase that began: inspect, embed, warmup, distill or evaluate; null before."
    )
    is_terminal: bool
    kind: str = Field(description="distill, or validate for a job that ends after inspection.")
    dry_run: bool = Field(description="True if the kind is validate.")
    progress: Progress
    queue_position: int | None = Field(description="1 for the next job; null if the job does not wait.")
    attempt: int = Field(description="Starts at 1; rises by 1 with each crash, hang or lost worker.")
    cancel_requested: bool
    pause_requested: bool = Field(description="True while a running job is about to pause.")
    files: dict[str, UploadedFile] = Field(description="The optional uploads: evaluation, embeddings.")
    metrics: LatestMetrics
    quality: Quality | None = Field(description="How good the student is; null until there is one.")
    error: JobError | None
    artifacts: list[ArtifactBody]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class JobBody(_JobFields):
    """One job. `is_terminal` is true once it has ended."""

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
                    "quality": None,
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
    spec: dict[str, Any] = Field(description="The spec of the request, with its preset expanded.")
    resolved: dict[str, Any] | None = Field(
        description="The spec with each 'auto' resolved; null until inspected."
    )
    teacher: dict[str, Any] = Field(description="The uploaded file, and the results of its inspection.")


class SpecSummary(BaseModel):
    """The values of a job's spec that a list shows. Labels may have megabytes, so it shows their number.

    All fields are null for a job that was submitted during the upgrade to the release with summaries.
    """

    num_classes: int | None = None
    input_size: list[int] | None = Field(None, description="(channels, height, width) in pixels.")
    teacher_architecture: str | None = Field(None, description="'auto' until inspected.")
    student_architecture: str | None = None
    preset: str | None = None
    metadata: dict[str, str] | None = None
    webhook: bool | None = Field(None, description="Whether the job has a web hook.")


class JobSummaryBody(_JobFields):
    """One job of a list, without the documents that may be large; `links.self` is the whole job."""

    summary: SpecSummary
    teacher: UploadedFile


class JobPage(BaseModel):
    """Jobs, newest first. `next` is the value of `after` for the following page."""

    data: list[JobSummaryBody]
    has_more: bool
    next: str | None
