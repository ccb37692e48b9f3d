"""From a request to the first values of a job's row."""

import uuid
from typing import Any

from jobs.states import JobStatus
from jobs.values import NewJob, StoredFile
from nayer_core.contract.spec import JobSpec

MAX_FILENAME = 255


def first_values(new: NewJob) -> dict[str, Any]:
    """The columns of a new job."""
    return {
        "id": uuid.uuid4().hex,
        "status": JobStatus.VALIDATING,
        "dry_run": new.dry_run,
        "spec": _expanded(new.spec),
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


def _expanded(spec: JobSpec) -> dict[str, Any]:
    preset, config = spec.resolved_config()
    return {**spec.model_dump(mode="json"), "preset": preset, "config": config.model_dump(mode="json")}


def with_clean_name(stored: StoredFile) -> StoredFile:
    """Keep of a client's file name what a database and a page can show."""
    name = (stored.filename or "").encode("utf-8", "replace").decode().replace("\0", "")[:MAX_FILENAME]
    return StoredFile(stored.key, stored.sha256, stored.bytes, name or None)
