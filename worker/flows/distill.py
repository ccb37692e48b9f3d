"""The flow of queue `distill`: canonical files become a student and what belongs to it."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.values import Artifact, Checkpoint, Job
from nayer_core.contract.artifacts import METRICS, MODEL_CARD, PARTIAL_STUDENT, SAMPLES, STUDENT
from nayer_core.contract.errors import ErrorCode
from worker.claims.attempt import Attempt
from worker.claims.outcomes import Crashed, Refused, Stopped
from worker.flows.checkpoints import CheckpointKeeper, restore, started_anew
from worker.flows.warm_banks import BANK, Banks
from worker.process.child import Limits
from worker.process.environment import core_environment
from worker.process.scratch import remove_tree
from worker.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

COMPANIONS = (MODEL_CARD, METRICS, SAMPLES)
# Of a run that diverged: the student of its last good state, and how it came to that.
LEFT_BY_FAILURE = (PARTIAL_STUDENT, METRICS)


def distill(attempt: Attempt) -> Job:
    """Distil a claimed job's student, going on from where an earlier claim left it, and publish it.

    Raises:
        Outcome: there is no student.
    """
    inputs, out = attempt.folder / "inputs", attempt.folder / "outputs"
    inputs.mkdir()
    out.mkdir()
    files = attempt.write(lambda: attempt.service.inputs(attempt.claim))
    for name, stored in files.items():
        attempt.fetch(stored, inputs / name)
    banks = Banks(attempt, inputs, files)
    try:
        result = _go_on_or_begin(attempt, inputs, out, banks)
    except Refused as refusal:
        if (out / PARTIAL_STUDENT).is_file():
            refusal.artifacts = _publish(attempt, out, LEFT_BY_FAILURE)
        raise
    if not (out / STUDENT).is_file():
        raise Crashed("it finished without leaving a student", by_force=False)
    banks.keep(out / BANK)
    artifacts = _publish(attempt, out, (STUDENT, *COMPANIONS))
    metrics = dict(_numbers(result.get("metrics", {})))
    return attempt.conclude(lambda: attempt.service.succeed(attempt.claim, artifacts, metrics))


def _publish(attempt: Attempt, out: Path, names: Sequence[str]) -> list[Artifact]:
    """Store what the core has left of these files."""
    return [
        Artifact.of(name, attempt.store(out / name, "artifacts")) for name in names if (out / name).is_file()
    ]


def _go_on_or_begin(attempt: Attempt, inputs: Path, out: Path, banks: Banks) -> dict[str, Any]:
    """Run the core from the job's newest whole checkpoint, or from the beginning where there is none."""
    saved = out / "checkpoint"
    saved.mkdir()
    checkpoint = restore(attempt, saved)
    if checkpoint is not None:
        attempt.write(lambda: attempt.service.resumed(attempt.claim, checkpoint))
        try:
            return _run(attempt, inputs, out, checkpoint, ["--resume", str(saved)])
        except Refused as refusal:
            if refusal.code != ErrorCode.CHECKPOINT_INVALID:
                raise
            logger.warning("the core refused the checkpoint: %s", refusal.message)
            attempt.tell([started_anew("the program cannot use the checkpoint")])
        remove_tree(saved)
        saved.mkdir()
    return _run(attempt, inputs, out, None, banks.take())


def _run(
    attempt: Attempt, inputs: Path, out: Path, checkpoint: Checkpoint | None, begin_with: Sequence[str]
) -> dict[str, Any]:
    saved, settings = out / "checkpoint", attempt.settings
    arguments = ["distill", "--in", str(inputs), "--out", str(out)]
    arguments += ["--name", attempt.claim.job.id, *begin_with]
    arguments += ["--checkpoint-seconds", str(settings.checkpoint_seconds)]
    if settings.device != "auto":
        arguments += ["--device", settings.device]
    if settings.processes_per_job > 1:
        arguments += ["--processes", str(settings.processes_per_job)]
    with CheckpointKeeper(attempt, saved, checkpoint) as keeper:
        try:
            return attempt.run(
                arguments,
                folder=attempt.folder,
                environment=core_environment(attempt.folder),
                limits=Limits(),
                watchdog=Watchdog(stall_seconds=settings.stall_seconds),
                on_checkpoint=keeper.take,
            )
        except (Crashed, Stopped) as end:
            if isinstance(end, Crashed) or end.reason.keeps_state:
                keeper.finish(attempt.checkpoint_seconds_left)
            raise


def _numbers(measured: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """What was measured, without the words: `value` under the metric's name, bounds under their own."""
    for name, parts in measured.items():
        for part, value in parts.items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield (name if part == "value" else f"{name}_{part}"), float(value)
