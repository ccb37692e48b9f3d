"""The flow of queue `inspect`: hostile uploads become canonical files, class names embeddings."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from jobs.records import Artifact, Job, StoredFile
from nayer_core.contract.artifacts import REPORT
from nayer_core.contract.errors import ErrorCode
from worker.attempt import Attempt
from worker.child import Limits
from worker.embedding import embed
from worker.environment import core_environment
from worker.outcomes import Crashed, Refused
from worker.scratch import remove_tree
from worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

CANONICAL_FILES = ("teacher.safetensors", "spec.json", "lte.safetensors", "evaluation.safetensors")

GIB = 2**30
# The core's own jail is tighter; these hold should it fail. A CUDA build maps 3.2 GB on import alone.
_MEMORY_FLOOR_BYTES = 8 * GIB
_MEMORY_PER_UPLOADED_BYTE = 6
_SMALLEST_FILE_LIMIT_BYTES = GIB


def validate(attempt: Attempt) -> Job:
    """Inspect the uploads of a claimed job, embed its labels, and pass it on.

    Raises:
        Outcome: it could not be passed on; `Refused` when the uploads are to blame.
    """
    out = attempt.folder / "inspected"
    out.mkdir()
    report = _inspect(attempt, out)
    resolved = json.loads((out / "spec.json").read_text())
    inputs: dict[str, StoredFile] = {}
    if not attempt.claim.job.dry_run:
        embedded = embed(attempt, resolved, out)
        report["warnings"] = [*report["warnings"], *embedded.pop("warnings")]
        report["text_encoder"] = embedded
        resolved["text_encoder"]["name"] = embedded["text_encoder"]
        (out / "spec.json").write_text(json.dumps(resolved))
        inputs = {
            name: attempt.store(out / name, "inputs") for name in CANONICAL_FILES if (out / name).exists()
        }
    (out / REPORT).write_text(json.dumps(report))
    artifact = Artifact.of(REPORT, attempt.store(out / REPORT, "artifacts"))
    attempt.write(lambda: attempt.service.add_artifact(attempt.claim, artifact))
    return attempt.conclude(lambda: attempt.service.validated(attempt.claim, resolved, report, inputs))


def _inspect(attempt: Attempt, out: Path) -> dict[str, Any]:
    job = attempt.claim.job
    uploads = attempt.folder / "uploads"
    uploads.mkdir()
    spec = attempt.folder / "spec.json"
    spec.write_text(json.dumps(job.spec))
    arguments = ["inspect", "--spec", str(spec), "--out", str(out)]
    arguments += ["--memory-bytes", str(attempt.settings.max_run_bytes or _machine_bytes())]
    uploaded_bytes = 0
    for name, stored in (
        ("teacher", job.teacher),
        ("evaluation", job.evaluation),
        ("embeddings", job.embeddings),
    ):
        if stored is not None:
            arguments += [f"--{name}", str(attempt.fetch(stored, uploads / name))]
            uploaded_bytes += stored.bytes
    try:
        report = attempt.run(
            arguments,
            folder=attempt.folder,
            environment=core_environment(attempt.folder),
            limits=_limits(uploaded_bytes),
            watchdog=Watchdog(seconds=attempt.settings.inspect_seconds),
        )
    except Crashed as crash:
        if not crash.by_force:
            raise
        raise Refused(
            ErrorCode.TEACHER_REJECTED,
            f"Reading the uploaded files was broken off: {crash.reason}.",
            "Save the weights with safetensors.torch.save_file(network.state_dict(), path), and send those.",
        ) from crash
    remove_tree(uploads)  # what runs next on this job must not see a stranger's bytes
    return report


def _machine_bytes() -> int:
    """The memory of this machine; what a container may have of it is not known to be what a run may have."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(uploaded_bytes: int) -> Limits:
    return Limits(
        memory_bytes=_MEMORY_FLOOR_BYTES + _MEMORY_PER_UPLOADED_BYTE * uploaded_bytes,
        file_bytes=max(_SMALLEST_FILE_LIMIT_BYTES, 4 * uploaded_bytes),
    )
