"""The authors' procedure and ours on one teacher of CIFAR-10, in one run on one machine.

    python -m benchmarks.side_by_side [--teacher FILE] [--seeds 0 1 2] [--max-seconds N]

For each seed: the authors' procedure at the reference's configuration; ours at the same
configuration and with the same label vectors; preset `balanced` until it has the accuracy that the
authors would report (the best epoch's on the test set; 31.6 % where `--max-seconds` left none).
Seconds are without measuring accuracy, and nothing else should run. Prints a table, and as the last
line one JSON object. Needs ../shared/data.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import cifar10, machine
from benchmarks.bench import REFERENCE_ACCURACY, REFERENCE_RUN
from benchmarks.cifar10 import CifarTeacher
from benchmarks.published import reference
from nayer_core.hardware.allocator import keep_freed_memory

BALANCED_CODES = "sbert+white"


def main() -> None:
    """Run all and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    CifarTeacher.add_arguments(parser)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--max-seconds", type=float, default=float("inf"), help="give the authors' procedure up after these"
    )
    args = parser.parse_args()
    cifar10.require_data()
    teacher = CifarTeacher.of(args)
    print(f"{machine.describe()}, teacher {args.teacher.name}, seeds {args.seeds}", flush=True)
    rows = []
    for seed in args.seeds:
        rows.append(compare(teacher, seed, args.max_seconds))
        print(json.dumps(rows[-1]), flush=True)
    print(f"\n{as_markdown(rows)}")
    print(json.dumps({"machine": machine.describe(), "teacher": args.teacher.name, **ratios(rows)}))


def compare(teacher: CifarTeacher, seed: int, max_seconds: float) -> dict[str, Any]:
    """All three runs for one seed."""
    published = reference.run(teacher, seed, max_seconds)
    keep_freed_memory()  # as the program does; from the second seed on it serves their procedure, too
    same = cifar10.run("paper-cifar10", REFERENCE_RUN, "clip", seed, teacher=teacher)
    target = published.best or REFERENCE_ACCURACY
    balanced = cifar10.run("balanced", {}, BALANCED_CODES, seed, until=target, teacher=teacher)
    return {
        "seed": seed,
        "published_seconds": round(published.seconds, 1),
        "published_accuracy": published.accuracies[-1] if published.accuracies else 0.0,
        "published_best_accuracy": published.best,
        "published_complete": published.complete,
        "same_config_seconds": round(same.seconds, 1),
        "same_config_accuracy": same.accuracy,
        "balanced_seconds": round(balanced.seconds, 1),
        "balanced_accuracy": balanced.accuracy,
        "balanced_reached": balanced.accuracy >= target,
    }


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many times as long the authors' procedure took, over the seeds together.

    Where it was given up, the ratios are bounds from below for the configuration and say nothing
    of an accuracy it did not reach.
    """
    published = sum(row["published_seconds"] for row in rows)
    return {
        "seeds": [row["seed"] for row in rows],
        "published_complete": all(row["published_complete"] for row in rows),
        "same_config_factor": round(published / sum(row["same_config_seconds"] for row in rows), 2),
        "balanced_factor": round(published / sum(row["balanced_seconds"] for row in rows), 2),
        "balanced_reached": all(row["balanced_reached"] for row in rows),
    }


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Seconds and accuracies, one line for each of the three ways."""
    factors = ratios(rows)
    lines = ["| | seconds, mean | accuracy %, mean | each | times as fast |", "|---|---|---|---|---|"]
    for title, way, factor in (
        ("published procedure, last epoch", "published", "1"),
        ("ours, the same configuration", "same_config", str(factors["same_config_factor"])),
        ("ours, `balanced` until their best epoch", "balanced", str(factors["balanced_factor"])),
    ):
        accuracies = [100 * row[f"{way}_accuracy"] for row in rows]
        seconds = statistics.mean(row[f"{way}_seconds"] for row in rows)
        each = " ".join(f"{accuracy:.1f}" for accuracy in accuracies)
        lines.append(f"| {title} | {seconds:.0f} | {statistics.mean(accuracies):.1f} | {each} | {factor} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
