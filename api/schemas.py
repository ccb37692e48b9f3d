"""Response bodies: models of the JSON documents, with examples for OpenAPI."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

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
    """Events in order. `next` is the value of `after` for the next page, even if this page is empty."""

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


class ArchitectureBody(BaseModel):
    """A network that can be a teacher or a student."""

    name: str
    family: str
    notes: str


class ArchitectureList(BaseModel):
    """Networks whose name, family or notes contain every search word."""

    data: list[ArchitectureBody]
    total: int


class PresetBody(BaseModel):
    """A named configuration with all of its values."""

    name: str
    summary: str
    config: dict[str, Any]


class PresetList(BaseModel):
    """All presets."""

    data: list[PresetBody]
    default: str


class SchemaBody(BaseModel):
    """JSON Schema 2020-12 of a spec and of its `config`, with defaults, limits and sources."""

    job_spec: dict[str, Any]
    distill_config: dict[str, Any]


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Check(BaseModel):
    """Whether one part of the service works, and how long the check took."""

    ok: bool
    latency_ms: float
    detail: str | None = None


class Readiness(BaseModel):
    """Whether requests can be served: every part must work."""

    ready: bool
    checks: dict[str, Check]


class Version(BaseModel):
    """Name, version and commit of the running service."""

    name: str
    version: str
    revision: str | None = Field(description="The commit of the build; null if it is unknown.")
