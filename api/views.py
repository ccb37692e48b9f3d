"""Converts the records of `jobs` to the documents of the API."""

from dataclasses import dataclass
from typing import Any

from api.job_schemas import (
    ArtifactBody,
    JobBody,
    JobError,
    JobSummaryBody,
    LatestMetrics,
    Progress,
    Quality,
    SpecSummary,
    TimelineEntry,
    UploadedFile,
)
from api.schemas import EventBody
from jobs.kinds import VALIDATE
from jobs.states import PAUSABLE, JobStatus
from jobs.values.files import StoredFile
from jobs.values.jobs import Job, JobSummary
from jobs.values.log import JobEvent
from nayer_core.contract.artifacts import STUDENT

# Seconds until the next poll is useful: inspection is short, epochs are long.
RETRY_AFTER = {JobStatus.VALIDATING: 1, JobStatus.QUEUED: 5, JobStatus.RUNNING: 5, JobStatus.PAUSED: 30}


@dataclass(frozen=True)
class SummaryView:
    """A job as a list shows it to one client.

    Args:
        job: the record.
        queue_position: 1 for the next job; None if it does not wait.
        keep_artifacts_seconds: the setting of that name.
        root: the prefix of every path if a proxy mounts the service below its root; else empty.
    """

    job: JobSummary
    queue_position: int | None
    keep_artifacts_seconds: float | None
    root: str = ""

    @property
    def path(self) -> str:
        """The path of the job."""
        return f"{self.root}/jobs/{self.job.id}"

    def summary(self) -> JobSummaryBody:
        """The job's entry in a list."""
        return JobSummaryBody(
            **self._fields(),
            summary=SpecSummary.model_validate(self.job.summary),
            teacher=_uploaded(self.job.uploads["teacher"]),
        )

    def artifacts(self) -> list[ArtifactBody]:
        """The documents of the job's artifacts, including expired ones."""
        expires_at = self.job.artifacts_expire_at(self.keep_artifacts_seconds)
        return [
            ArtifactBody(
                name=artifact.name,
                bytes=artifact.bytes,
                sha256=artifact.sha256,
                media_type=artifact.media_type,
                created_at=artifact.created_at,
                expires_at=expires_at,
                href=f"{self.path}/artifacts/{artifact.name}",
            )
            for artifact in self.job.artifacts
        ]

    def _fields(self) -> dict[str, Any]:
        job = self.job
        return {
            "id": job.id,
            "status": job.status,
            "phase": job.phase,
            "is_terminal": job.is_terminal,
            "kind": job.kind.name,
            "dry_run": job.kind is VALIDATE,
            "progress": Progress.model_validate(job.progress),
            "queue_position": self.queue_position,
            "attempt": job.attempt,
            "cancel_requested": job.cancel_requested,
            "pause_requested": job.pause_requested,
            "files": {name: _uploaded(file) for name, file in job.uploads.items() if name != "teacher"},
            "metrics": LatestMetrics(latest=job.latest_metrics),
            "quality": Quality.model_validate(job.quality) if job.quality else None,
            "error": JobError.model_validate(job.error) if job.error else None,
            "artifacts": self.artifacts(),
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "links": self._links(),
        }

    def _links(self) -> dict[str, str]:
        links = {"self": self.path}
        links |= {name: f"{self.path}/{name}" for name in ("events", "metrics", "artifacts")}
        if self.job.summary.get("webhook"):
            links["deliveries"] = f"{self.path}/deliveries"
        if not self.job.is_terminal:
            links["cancel"] = f"{self.path}/cancel"
        if self.job.status in PAUSABLE:
            links["pause"] = f"{self.path}/pause"
        if self.job.status is JobStatus.PAUSED or self.job.pause_requested:
            links["resume"] = f"{self.path}/resume"
        if any(artifact.name == STUDENT and artifact.kept for artifact in self.job.artifacts):
            links["student"] = f"{self.path}/student"
        return links


@dataclass(frozen=True)
class JobView(SummaryView):
    """A whole job as one client sees it."""

    job: Job

    def headers(self) -> dict[str, str]:
        """`ETag`, which covers everything that can change, and `Retry-After` until the job has ended."""
        waiting = "" if self.queue_position is None else f"-{self.queue_position}"
        headers = {"ETag": f'W/"{self.job.version}{waiting}"', "Cache-Control": "private, no-cache"}
        if not self.job.is_terminal:
            headers["Retry-After"] = str(RETRY_AFTER[self.job.status])
        return headers

    def body(self) -> JobBody:
        """The whole document."""
        job = self.job
        return JobBody(
            **self._fields(),
            timeline=[TimelineEntry.model_validate(entry) for entry in job.timeline],
            spec=job.spec,
            resolved=job.resolved,
            teacher={**_uploaded(job.uploads["teacher"]).model_dump(), **(job.report or {})},
        )


def event_body(event: JobEvent) -> EventBody:
    """The document of an event, the same in a page and in a stream."""
    return EventBody(seq=event.seq, type=event.type, data=event.data, created_at=event.created_at)


def _uploaded(file: StoredFile) -> UploadedFile:
    return UploadedFile(filename=file.filename, bytes=file.bytes, sha256=file.sha256)
