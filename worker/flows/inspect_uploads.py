"""The flows of queue `inspect`: untrusted uploads become canonical files, class names become embeddings."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.values.claims import StageResult
from nayer_core.contract.artifacts import REPORT
from nayer_core.contract.errors import ErrorCode
from worker.claims.core_run import CoreRun
from worker.claims.held_job import HeldJob
from worker.claims.outcomes import Crashed, Refused
from worker.claims.workbench import Workbench
from worker.flows.embed_labels import embed_labels
from worker.process.child import Limits
from worker.process.environment import core_environment
from worker.process.scratch import remove_tree
from worker.process.watchdog import Watchdog

SPEC = "spec.json"
CANONICAL_FILES = ("teacher.safetensors", SPEC, "lte.safetensors", "evaluation.safetensors")

GIB = 2**30
# The core's own limits are tighter; these apply if those fail. A CUDA build maps 3.2 GB on import alone.
_MEMORY_FLOOR_BYTES = 8 * GIB
_MEMORY_PER_UPLOADED_BYTE = 6
_SMALLEST_FILE_LIMIT_BYTES = GIB


def validate(job: HeldJob, bench: Workbench) -> StageResult:
    """Read the uploads of a job, and publish the report on them.

    Raises:
        Outcome: there is no report; `Refused` if the uploads are the cause.
    """
    out = bench.new_folder("inspected")
    report = _inspect(job, bench, out)
    _publish(job, bench, out, report)
    return StageResult(resolved=json.loads((out / SPEC).read_text()), report=report)


def prepare_distillation(job: HeldJob, bench: Workbench) -> StageResult:
    """Read the uploads of a job, embed its class names, and store what its distillation needs.

    Raises:
        Outcome: it cannot be distilled; `Refused` if the uploads are the cause.
    """
    out = bench.new_folder("inspected")
    report = _inspect(job, bench, out)
    spec = json.loads((out / SPEC).read_text())
    embedding = embed_labels(job, bench, spec, out)
    report["warnings"] = [*report["warnings"], *embedding.pop("warnings")]
    report["text_encoder"] = embedding
    spec["text_encoder"]["name"] = embedding["text_encoder"]
    (out / SPEC).write_text(json.dumps(spec))
    inputs = bench.store_present(out, CANONICAL_FILES, "inputs")
    _publish(job, bench, out, report)
    return StageResult(resolved=spec, report=report, inputs=inputs)


def _publish(job: HeldJob, bench: Workbench, out: Path, report: Mapping[str, Any]) -> None:
    (out / REPORT).write_text(json.dumps(report))
    job.add_artifact(job.snapshot.kind.artifact(REPORT, bench.store(out / REPORT, "artifacts")))


def _inspect(job: HeldJob, bench: Workbench, out: Path) -> dict[str, Any]:
    """Run the core's `inspect` on the uploads; returns its report, and leaves canonical files in `out`."""
    request = job.snapshot
    uploads = bench.new_folder("uploads")
    spec_file = bench.folder / SPEC
    spec_file.write_text(json.dumps(request.spec))
    arguments = ["inspect", "--spec", str(spec_file), "--out", str(out)]
    arguments += ["--memory-bytes", str(bench.settings.max_run_bytes or _machine_bytes())]
    uploaded_bytes = 0
    for name, file in request.uploads.items():
        arguments += [f"--{name}", str(bench.fetch(file, uploads / name))]
        uploaded_bytes += file.bytes
    run = CoreRun(job, bench.program, Watchdog(seconds=bench.settings.inspect_seconds))
    try:
        report = run.execute(
            arguments,
            folder=bench.folder,
            environment=core_environment(bench.folder),
            limits=_limits(uploaded_bytes),
        )
    except Crashed as crash:
        if not crash.by_force:
            raise
        raise Refused(
            ErrorCode.TEACHER_REJECTED,
            f"The process that read the uploaded files was ended: {crash.reason}.",
            "Save the weights with safetensors.torch.save_file(network.state_dict(), path), and send those.",
        ) from crash
    remove_tree(uploads)  # the next command of this job must not see a client's files
    return report


def _machine_bytes() -> int:
    """The memory of this machine; a container's share is not used, because a run may have another one."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(uploaded_bytes: int) -> Limits:
    return Limits(
        memory_bytes=_MEMORY_FLOOR_BYTES + _MEMORY_PER_UPLOADED_BYTE * uploaded_bytes,
        file_bytes=max(_SMALLEST_FILE_LIMIT_BYTES, 4 * uploaded_bytes),
    )
