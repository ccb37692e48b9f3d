"""The flow of queue `distill`: canonical files become a student and what belongs to it."""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.records import Artifact, Job
from worker.attempt import Attempt
from worker.child import Limits
from worker.environment import core_environment
from worker.outcomes import Crashed
from worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

STUDENT = "student.safetensors"
COMPANIONS = ("model_card.json", "metrics.jsonl", "samples.png")


def distill(attempt: Attempt) -> Job:
    """Distil a claimed job's student and publish it.

    Raises:
        Outcome: there is no student.
    """
    inputs, out = attempt.folder / "inputs", attempt.folder / "outputs"
    inputs.mkdir()
    out.mkdir()
    for name, stored in attempt.write(lambda: attempt.service.inputs(attempt.claim)).items():
        attempt.fetch(stored, inputs / name)
    arguments = ["distill", "--in", str(inputs), "--out", str(out)]
    if attempt.settings.device != "auto":
        arguments += ["--device", attempt.settings.device]
    result = attempt.run(
        arguments,
        folder=attempt.folder,
        environment=core_environment(attempt.folder),
        limits=Limits(),
        watchdog=Watchdog(stall_seconds=attempt.settings.stall_seconds),
    )
    if not (out / STUDENT).is_file():
        raise Crashed("it finished without leaving a student", by_force=False)
    artifacts = [
        Artifact.of(name, attempt.store(out / name, "artifacts"))
        for name in (STUDENT, *COMPANIONS)
        if (out / name).is_file()
    ]
    metrics = dict(_numbers(result.get("metrics", {})))
    return attempt.conclude(lambda: attempt.service.succeed(attempt.claim, artifacts, metrics))


def _numbers(measured: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """What was measured, without the words: `value` under the metric's name, bounds under their own."""
    for name, parts in measured.items():
        for part, value in parts.items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield (name if part == "value" else f"{name}_{part}"), float(value)
