"""Makes a job from a request."""

import uuid
from typing import Any

from jobs.rows import repository
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.transitions import files, steps
from jobs.states import WAITING_IN
from jobs.values.files import StoredFile
from jobs.values.jobs import NewJob, summarise
from nayer_core.contract.spec import JobSpec

MAX_FILENAME = 255


def submit(session: Session, new: NewJob) -> JobTable | None:
    """Create a job that waits for its first stage, and whose files are already stored.

    The spec is kept with its preset named and expanded.

    Returns:
        None if a committed job has this idempotency key already.
    """
    job = repository.insert_job(session, _first_values(new))
    if job is None:
        return None
    now = repository.now(session)
    for name, file in new.uploads.items():
        files.put_file(job, "upload", name, _with_clean_name(file), now)
    job.rung_at = now
    steps.log_status(session, job)
    return job


def _first_values(new: NewJob) -> dict[str, Any]:
    preset, config = new.spec.resolved_config()
    spec = {**new.spec.model_dump(mode="json"), "preset": preset, "config": config.model_dump(mode="json")}
    return {
        "id": uuid.uuid4().hex,
        "status": WAITING_IN[new.kind.stages[0]],
        "kind": new.kind.name,
        "priority": new.kind.priority,
        "spec": spec,
        "summary": summarise(spec, None),
        "progress": {},
        "timeline": [],
        "latest_metrics": {},
        "max_runtime_seconds": new.spec.max_runtime_seconds,
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "webhook_secret": _secret_of(new.spec),
    }


def _secret_of(spec: JobSpec) -> str | None:
    secret = spec.webhook.secret if spec.webhook else None
    return secret.get_secret_value() if secret else None


def _with_clean_name(file: StoredFile) -> StoredFile:
    """Reduce a client's file name to what a database and a page can show."""
    name = (file.filename or "").encode("utf-8", "replace").decode().replace("\0", "")[:MAX_FILENAME]
    return StoredFile(file.key, file.sha256, file.bytes, name or None)
