"""The documents of web hooks: messages to receivers, and deliveries as clients see them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.job_schemas import JobError, LatestMetrics, Quality
from api.schemas import EXAMPLE_ID, EXAMPLE_SHA256
from jobs.states import JobStatus
from jobs.webhooks.deliveries import DeliveryError, DeliveryStatus
from nayer_core.contract.artifacts import STUDENT
from nayer_core.contract.webhook import WebhookEvent

EXAMPLE_DELIVERY_ID = "msg_5f0c9a1e7b6d4c3f8e2a1b0c9d8e7f6a"


class DeliveryBody(BaseModel):
    """One message to the web hook of a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_DELIVERY_ID,
                    "event": "job.succeeded",
                    "status": "pending",
                    "attempts": 2,
                    "last_status_code": 503,
                    "last_error": None,
                    "next_attempt_at": "2026-11-22T10:02:41Z",
                    "created_at": "2026-11-22T10:02:11Z",
                    "delivered_at": None,
                }
            ]
        }
    )

    id: str = Field(description="The `webhook-id` of every attempt.")
    event: WebhookEvent
    status: DeliveryStatus = Field(description="`failed` once there is no further attempt.")
    attempts: int
    last_status_code: int | None = Field(description="HTTP status of the receiver's last response.")
    last_error: DeliveryError | None = Field(description="Why the last attempt got no response.")
    next_attempt_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None


class DeliveryPage(BaseModel):
    """Messages, newest first. `next` is the value of `after` for the following page."""

    data: list[DeliveryBody]
    has_more: bool
    next: str | None


class MessageArtifact(BaseModel):
    """A file that can be downloaded at `/jobs/{id}/artifacts/{name}`."""

    name: str
    bytes: int
    sha256: str


class MessageJob(BaseModel):
    """The job at the time of its step; the fields are those of `GET /jobs/{id}`."""

    id: str
    status: JobStatus
    kind: str
    dry_run: bool
    attempt: int
    error: JobError | None
    metrics: LatestMetrics
    quality: Quality | None
    artifacts: list[MessageArtifact]
    metadata: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


MESSAGE_EXAMPLE: dict[str, Any] = {
    "type": "job.succeeded",
    "timestamp": "2026-11-22T10:02:11+00:00",
    "data": {
        "id": EXAMPLE_ID,
        "status": "succeeded",
        "kind": "distill",
        "dry_run": False,
        "attempt": 1,
        "error": None,
        "metrics": {"latest": {"agreement_on_synthetic": 0.97}},
        "quality": {
            "estimated_agreement": {
                "value": 0.93,
                "low": 0.86,
                "high": 0.97,
                "basis": "estimated: from synthetic images",
            }
        },
        "artifacts": [{"name": STUDENT, "bytes": 716_384, "sha256": EXAMPLE_SHA256}],
        "metadata": {"team": "vision"},
        "created_at": "2026-11-22T09:11:00+00:00",
        "started_at": "2026-11-22T09:11:02+00:00",
        "finished_at": "2026-11-22T10:02:11+00:00",
    },
}


class Message(BaseModel):
    """A message to a web hook, in the format of Standard Webhooks."""

    model_config = ConfigDict(json_schema_extra={"examples": [MESSAGE_EXAMPLE]})

    type: WebhookEvent
    timestamp: datetime = Field(description="Time of the job's step, not of this delivery.")
    data: MessageJob
