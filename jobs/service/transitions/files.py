"""Which stored files belong to a job."""

from collections.abc import Iterable
from datetime import datetime

from jobs.rows.database import Session
from jobs.rows.tables import FileTable, JobTable
from jobs.service.transitions import steps
from jobs.values import Artifact, StoredFile


def put_file(
    job: JobTable, kind: str, name: str, stored: StoredFile, now: datetime, media_type: str | None = None
) -> None:
    """Name a stored file, in place of an older one of that name."""
    job.files = [file for file in job.files if (file.kind, file.name) != (kind, name)]
    job.files.append(
        FileTable(
            job_id=job.id,
            kind=kind,
            name=name,
            key=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
            filename=stored.filename,
            media_type=media_type,
            kept=True,
            created_at=now,
        )
    )


def add_artifacts(session: Session, job: JobTable, artifacts: Iterable[Artifact], now: datetime) -> None:
    """Publish stored files for download."""
    for artifact in artifacts:
        stored = StoredFile(artifact.key, artifact.sha256, artifact.bytes)
        put_file(job, "artifact", artifact.name, stored, now, artifact.media_type)
        entry = {"name": artifact.name, "bytes": artifact.bytes, "sha256": artifact.sha256}
        steps.log(session, job, "artifact", {**entry, "media_type": artifact.media_type})


def let_uploads_go(job: JobTable) -> None:
    """Stop keeping what the client sent, once its canonical form is stored; names and hashes stay."""
    for file in job.files:
        if file.kind == "upload":
            file.kept = False
