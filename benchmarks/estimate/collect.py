"""Runs with the truth: every candidate beside the agreement on real images, a line for each student."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.estimate import candidates, students, teachers
from benchmarks.estimate.images import DataAbsent
from benchmarks.estimate.students import StudentRun
from benchmarks.runs import PreparedRun
from nayer_core.measuring import signals
from nayer_core.measuring.evaluation import EvaluationSet

RESULTS = Path(__file__).parents[1] / "results" / "estimate_runs.jsonl"


def collect(results: Path, names: list[str]) -> None:
    """Make the runs that have no lines yet, and append their lines.

    Args:
        results: the file of lines.
        names: beginnings of the names of the runs to make; empty makes all.
    """
    done = {row["name"] for row in read(results)}
    for case in students.cases():
        chosen = not names or case.name.startswith(tuple(names))
        if not chosen or all(f"{case.name}-{epoch}" in done for epoch in case.epochs):
            continue
        try:
            for row in _rows(case):
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{row['name']}  real {row['real']:.3f}  fresh {row['fresh.agree']:.3f}", flush=True)
        except DataAbsent as absent:
            print(f"{case.name} is left out: {absent}.", file=sys.stderr)


def read(results: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none where it is absent."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def _rows(case: StudentRun) -> Iterator[dict[str, Any]]:
    start, revision = time.process_time(), _revision()
    data = teachers.load(case.teacher).images
    for epoch, prepared in students.snapshots(case):
        yield {
            "name": f"{case.name}-{epoch}",
            "teacher": case.teacher,
            "student": case.student,
            "kind": case.kind,
            "epoch": epoch,
            "size": data.size,
            "classes": len(data.labels),
            "images": signals.IMAGES,
            "batch_norm": bool(prepared.method.synthesizer.bn_regularization),
            **_truth(prepared, data.aside),
            **{name: round(value, 5) for name, value in candidates.measure(prepared).items()},
            "cpu_seconds": round(time.process_time() - start, 1),
            "revision": revision,
            "machine": machine.describe(),
        }


def _truth(prepared: PreparedRun, aside: EvaluationSet) -> dict[str, float]:
    """What the estimate is compared with: `real` is the agreement on images kept aside."""
    augment = prepared.distillands.augment
    by_teacher, by_student = (
        candidates.logits(network, aside.images, augment)
        for network in (prepared.distillands.teacher, prepared.method.student)
    )
    compared = candidates.compare(by_teacher, by_student, aside.labels)
    return {
        "real": compared["agree"],
        "real_images": len(aside.labels),
        "teacher_accuracy": compared["as_made"],
        "real_student_accuracy": (by_student.argmax(dim=1) == aside.labels).double().mean().item(),
        "real_teacher_confidence": compared["teacher_confidence"],
        "real_distance": candidates.statistics_distance(prepared.distillands.teacher, aside.images, augment),
    }


def _revision() -> str:
    """The commit of the code that makes the run."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
