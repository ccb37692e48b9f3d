"""The smallest kind of job: it counts what is in a teacher. It shows how one is added, and does not ship."""

import json
import struct
import time
from types import MappingProxyType

from jobs.kinds import DISTILL, KINDS
from jobs.values.claims import StageResult
from jobs.values.kinds import JobKind
from nayer_core.contract.artifacts import REPORT
from worker.claims.held_job import HeldJob
from worker.claims.outcomes import Stopped
from worker.claims.workbench import Workbench

CENSUS = JobKind(
    name="census",
    path="/jobs/census",
    operation_id="createCensus",
    summary="Count what is in a teacher",
    description="The job ends with `census.json`.",
    uploads=MappingProxyType({"teacher": DISTILL.uploads["teacher"]}),
    stages=("inspect", "distill"),
    artifacts=MappingProxyType({REPORT: "application/json", "census.json": "application/json"}),
    priority=2,
)
KINDS[CENSUS.name] = CENSUS


def count(job: HeldJob, bench: Workbench) -> StageResult:
    """Count tensors and numbers, after as many seconds as the job's metadata say."""
    until = time.monotonic() + float(job.snapshot.metadata.get("seconds", 0))
    while time.monotonic() < until:
        if (reason := job.lease.stop_reason()) is not None:
            raise Stopped(reason)
        time.sleep(0.05)
    name = "teacher.safetensors"
    content = bench.fetch(job.inputs()[name], bench.folder / name).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    tensors = sum(name != "__metadata__" for name in header)
    path = bench.folder / "census.json"
    path.write_text(json.dumps({"tensors": tensors}))
    artifact = job.snapshot.kind.artifact(path.name, bench.store(path, "artifacts"))
    return StageResult(artifacts=[artifact], metrics={"tensors": tensors})
