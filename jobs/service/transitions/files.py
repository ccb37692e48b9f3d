"""The stored files that belong to a job."""

from collections.abc import Iterable
from datetime import datetime

from jobs.rows.database import Session
from jobs.rows.tables import FileTable, JobTable
from jobs.service.transitions import steps
from jobs.values.files import Artifact, StoredFile


def put_file(
    job: JobTable, kind: str, name: str, file: StoredFile, now: datetime, media_type: str | None = None
) -> None:
    """Add a stored file to the job, in place of an older one of that name."""
    job.files = [other for other in job.files if (other.kind, other.name) != (kind, name)]
    job.files.append(
        FileTable(
            job_id=job.id,
            kind=kind,
            name=name,
            key=file.key,
            sha256=file.sha256,
            bytes=file.bytes,
            filename=file.filename,
            media_type=media_type,
            kept=True,
            created_at=now,
        )
    )


def add_artifacts(session: Session, job: JobTable, artifacts: Iterable[Artifact], now: datetime) -> None:
    """Publish stored files for download."""
    for artifact in artifacts:
        file = StoredFile(artifact.key, artifact.sha256, artifact.bytes)
        put_file(job, "artifact", artifact.name, file, now, artifact.media_type)
        entry = {"name": artifact.name, "bytes": artifact.bytes, "sha256": artifact.sha256}
        steps.log(session, job, "artifact", {**entry, "media_type": artifact.media_type})


def release_uploads(job: JobTable) -> None:
    """Set the uploads to not `kept`, once their canonical form is stored; names and hashes stay."""
    for file in job.files:
        if file.kind == "upload":
            file.kept = False
