"""Jobs to test with: valid requests and files that need no bodies."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

from jobs.files.store import Storage
from jobs.kinds import DISTILL
from jobs.values.claims import Claim, StageResult
from jobs.values.files import Artifact, Checkpoint, StoredFile
from jobs.values.jobs import Job, NewJob
from nayer_core.contract.spec import JobSpec
from tests.support.services import Services

SPEC: dict[str, Any] = {
    "labels": ["airplane", "automobile"],
    "teacher": {
        "input_size": [3, 32, 32],
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    },
    "student": {"architecture": "wrn_16_1"},
}
QUALITY = {
    "estimated_agreement": {
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
        "basis": "estimated: from synthetic images",
    }
}


def a_spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({**SPEC, **changes})


def a_file(key: str | None = None, filename: str | None = None) -> StoredFile:
    key = key or f"uploads/{uuid.uuid4().hex}"
    return StoredFile(key, hashlib.sha256(key.encode()).hexdigest(), 1234, filename)


def an_artifact(name: str = "student.safetensors") -> Artifact:
    return DISTILL.artifact(name, a_file(f"artifacts/{uuid.uuid4().hex}"))


def a_checkpoint(step: int = 100, epoch: int = 1, **files: StoredFile) -> Checkpoint:
    """A saved state; by default it has a file of its own. `fence` is filled in by the service."""
    return Checkpoint(0, epoch, step, files or {f"state-{step}": a_file(f"checkpoints/{uuid.uuid4().hex}")})


def a_request(**changes: Any) -> NewJob:
    uploads = {"teacher": a_file(filename="teacher.pt")}
    return NewJob(**{"kind": DISTILL, "spec": a_spec(), "uploads": uploads, **changes})


def submitted(service: Services, **changes: Any) -> Job:
    return service.clients.submit(a_request(**changes))[0]


def inspected(service: Services, **changes: Any) -> Job:
    """A job that waits for a distiller."""
    job = submitted(service, **changes)
    claim = claimed(service, "inspect", job)
    inputs = {name: a_file(f"inputs/{job.id}/{name}") for name in ("teacher.safetensors", "spec.json")}
    return service.workers.end_stage(
        claim, StageResult(resolved={"preset": "quick"}, report={"architecture": "resnet20"}, inputs=inputs)
    )


def inspected_as(service: Services, storage: Storage, inputs: Path) -> str:
    """A job that waits for the distillation of real canonical files; no inspector may be at work."""
    teacher = storage.put_stream([b"a teacher"], f"uploads/{uuid.uuid4()}")
    claim = claimed(service, "inspect", submitted(service, uploads={"teacher": teacher}))
    stored = {path.name: storage.publish(path, "inputs") for path in inputs.iterdir()}
    return service.workers.end_stage(claim, StageResult(inputs=stored)).id


def running(service: Services, **changes: Any) -> Claim:
    """A job that a distiller holds."""
    return claimed(service, "distill", inspected(service, **changes))


def claimed(service: Services, queue: Any, job: Job) -> Claim:
    """Claim exactly this job, which must be next in its queue."""
    claim = service.workers.claim(queue, "tests")
    assert claim is not None
    assert claim.job.id == job.id
    return claim
