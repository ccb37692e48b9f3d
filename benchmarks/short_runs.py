"""A/B runs at short budgets on CIFAR-10, by which the everyday presets were first chosen.

    python -m benchmarks.short_runs [NAME ...] [--seeds 0 1 2]

Each row is one choice changed against the row `base`. Rows already in the results file for a seed
are not run again, so an interrupted table continues where it stopped.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import cifar10, machine, tables
from benchmarks.trials import EVERYDAY

RESULTS = Path(__file__).parent / "results" / "short_runs.jsonl"

# 12 epochs of one round and 38 student steps after 3 warm-up rounds; 21.4 TMAC.
BASE: dict[str, Any] = {
    "epochs": 12,
    "warmup_epochs": 1,
    "warmup_rounds_per_epoch": 3,
    "rounds_per_epoch": 1,
    "generator_steps": 20,
    "student_steps": 38,
    "synthesis_batch_size": 100,
    "student_batch_size": 256,
    "images_of_last_steps": 0,
    "cutmix": 0.5,
    "temperature": 4.0,
}
CODES = "clip+white"

ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "base": ({}, CODES),
    "codes: clip": ({}, "clip"),
    "codes: gaussian": ({}, "gaussian"),
    "codes: one_hot": ({}, "one_hot"),
    "codes: sbert": ({}, "sbert"),
    "codes: sbert+white": ({}, "sbert+white"),
    "images of the last 3 steps": ({"images_of_last_steps": 3}, CODES),
    "no CutMix": ({"cutmix": 0.0}, CODES),
    "student batch 128": ({"student_batch_size": 128}, CODES),
    "10 steps of 200 images": ({"generator_steps": 10, "synthesis_batch_size": 200}, CODES),
    "24 epochs of 10 and 19 steps": ({"epochs": 24, "generator_steps": 10, "student_steps": 19}, CODES),
    "6 epochs of 20 and 75 steps": ({"epochs": 6, "warmup_epochs": 2, "student_steps": 75}, CODES),
    "no warm-up": ({"warmup_epochs": 0}, CODES),
    "temperature 20": ({"temperature": 20.0}, CODES),
    "generator width 32": ({"generator_width": 32}, CODES),
}


def main() -> None:
    """Run what is missing and print the table."""
    args = tables.rows_parser(__doc__).parse_args()
    cifar10.require_data()
    tables.print_accuracies(args.rows or list(ROWS), args.seeds, _accuracy)


def _accuracy(name: str, seed: int) -> float:
    here = machine.describe()
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        row = json.loads(line)
        if (row["row"], row["seed"], row["machine"]) == (name, seed, here):
            return float(row["accuracy"])
    overrides, codes = ROWS[name]
    result = cifar10.run("paper-cifar10", {**EVERYDAY, **BASE, **overrides}, codes, seed)
    row = {"row": name, "seed": seed, "accuracy": result.accuracy, "seconds": round(result.seconds, 1)}
    with RESULTS.open("a") as file:
        file.write(json.dumps(row | {"machine": here}) + "\n")
    return result.accuracy


if __name__ == "__main__":
    main()
