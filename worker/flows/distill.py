"""The flow of queue `distill`: canonical files become a student and the files that belong to it."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.values.claims import StageResult
from jobs.values.files import Artifact, Checkpoint
from nayer_core.contract.artifacts import METRICS, MODEL_CARD, PARTIAL_STUDENT, SAMPLES, STUDENT
from nayer_core.contract.errors import ErrorCode
from worker.claims.core_run import CoreRun
from worker.claims.held_job import HeldJob
from worker.claims.outcomes import Crashed, Refused, Stopped
from worker.claims.workbench import Workbench
from worker.flows.checkpoints import CheckpointKeeper, restart_warning, restore
from worker.flows.warm_banks import BANK, WarmBank
from worker.process.child import Limits
from worker.process.environment import core_environment
from worker.process.scratch import remove_tree
from worker.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

COMPANIONS = (MODEL_CARD, METRICS, SAMPLES)
# Published even if a run diverged: the student of its last good state, and the metrics up to the end.
PARTIAL_RESULT = (PARTIAL_STUDENT, METRICS)


def distill(job: HeldJob, bench: Workbench) -> StageResult:
    """Distil a job's student, continuing where an earlier claim stopped, and publish it.

    Raises:
        Outcome: there is no student.
    """
    inputs, out = bench.new_folder("inputs"), bench.new_folder("outputs")
    files = job.inputs()
    for name, file in files.items():
        bench.fetch(file, inputs / name)
    warm_bank = WarmBank(job, bench, inputs, files)
    try:
        result = _resume_or_begin(job, bench, inputs, out, warm_bank)
    except Refused as refusal:
        if (out / PARTIAL_STUDENT).is_file():
            refusal.artifacts = _store_artifacts(job, bench, out, PARTIAL_RESULT)
        raise
    if not (out / STUDENT).is_file():
        raise Crashed("it finished without leaving a student", by_force=False)
    warm_bank.save(out / BANK)
    artifacts = _store_artifacts(job, bench, out, (STUDENT, *COMPANIONS))
    metrics = dict(_numbers(result.get("metrics", {})))
    return StageResult(artifacts=artifacts, metrics=metrics, quality=result.get("quality"))


def _resume_or_begin(
    job: HeldJob, bench: Workbench, inputs: Path, out: Path, warm_bank: WarmBank
) -> dict[str, Any]:
    """Run the core from the job's newest whole checkpoint, or from the beginning where there is none."""
    folder = out / "checkpoint"
    folder.mkdir()
    checkpoint = restore(job, bench, folder)
    if checkpoint is not None:
        job.log_resume(checkpoint)
        try:
            return _run_core(job, bench, inputs, out, ["--resume", str(folder)], checkpoint)
        except Refused as refusal:
            if refusal.code != ErrorCode.CHECKPOINT_INVALID:
                raise
            logger.warning("the core refused the checkpoint: %s", refusal.message)
            job.log_events([restart_warning("the program cannot use the checkpoint")])
        remove_tree(folder)
        folder.mkdir()
    return _run_core(job, bench, inputs, out, warm_bank.arguments())


def _run_core(
    job: HeldJob,
    bench: Workbench,
    inputs: Path,
    out: Path,
    start: Sequence[str],
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Run the core's `distill`, and store its checkpoints while it runs.

    Args:
        job, bench: as for `distill`.
        inputs, out: folders with the canonical files and for the results.
        start: arguments for the start of the run.
        checkpoint: the checkpoint from which it resumes, if any.
    """
    settings = bench.settings
    arguments = ["distill", "--in", str(inputs), "--out", str(out), "--name", job.id, *start]
    arguments += ["--checkpoint-seconds", str(settings.checkpoint_seconds)]
    if settings.device != "auto":
        arguments += ["--device", settings.device]
    if settings.processes_per_job > 1:
        arguments += ["--processes", str(settings.processes_per_job)]
    with CheckpointKeeper(job, bench, out / "checkpoint", checkpoint) as keeper:
        run = CoreRun(job, bench.program, Watchdog(stall_seconds=settings.stall_seconds), keeper.take)
        try:
            return run.execute(
                arguments,
                folder=bench.folder,
                environment=core_environment(bench.folder),
                limits=Limits(),
            )
        except (Crashed, Stopped) as end:
            if isinstance(end, Crashed) or end.reason.keeps_state:
                keeper.finish(job.drain.checkpoint_seconds())
            raise


def _store_artifacts(job: HeldJob, bench: Workbench, out: Path, names: Sequence[str]) -> list[Artifact]:
    """Store those of these files that the core has written."""
    files = bench.store_present(out, names, "artifacts")
    return [job.snapshot.kind.artifact(name, file) for name, file in files.items()]


def _numbers(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """The numbers of the metrics: `value` under the metric's name, bounds under their own names."""
    for name, parts in metrics.items():
        for part, value in parts.items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield (name if part == "value" else f"{name}_{part}"), float(value)
