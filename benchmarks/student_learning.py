"""Ways to learn more from the same work: the first epochs of long runs, side by side.

    python -m benchmarks.student_learning [NAME ...] [--seeds 0 1 2]

Each row is a choice against what `balanced` was, or has become through these runs ("now"): accuracy after
each of its first 12 epochs, or of all where its name says so. `replay` has the ways that are not part of the
method. Rows already in the results file for a seed are not run again.
"""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import cifar10, machine, tables
from benchmarks.replay import Priority, Recent, Views, Views2, Views8
from benchmarks.trials import EVERYDAY
from nayer_core.methods.parts.student_training import StudentTrainer

RESULTS = Path(__file__).parent / "results" / "student_learning.jsonl"
EPOCHS = 12
TARGET_ACCURACY = 0.316  # of the reference
CODES = "sbert+white"


@dataclass(frozen=True)
class LearningRow:
    """A choice.

    Attributes:
        config: fields that differ from the table's base.
        codes: a name of `cifar10.label_codes`.
        trainer: how the student learns.
        epochs: number of epochs after warm-up until the run is stopped.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    codes: str = CODES
    trainer: type[StudentTrainer] = StudentTrainer
    epochs: int = EPOCHS


# What `balanced` was before any of this, and what it became; spelt out, as presets may change.
BEFORE: Mapping[str, Any] = {
    **EVERYDAY,
    "epochs": 200,
    "warmup_epochs": 2,
    "warmup_rounds_per_epoch": 3,
    "generator_steps": 20,
    "student_steps": 38,
    "synthesis_batch_size": 100,
    "student_batch_size": 256,
    "student_averaging": 0.97,
}
SMALLER_BATCHES: Mapping[str, Any] = {"student_batch_size": 128, "student_steps": 76, "student_lr": 0.1}
NOW: Mapping[str, Any] = {
    **BEFORE,
    **SMALLER_BATCHES,
    "warmup_epochs": 1,
    "bn_weight": 3.0,
    "attention_weight": 2.0,
}
TWELVE: Mapping[str, Any] = {"epochs": 12, "warmup_epochs": 1}  # `quick`
SIXTY: Mapping[str, Any] = {"epochs": 60}
OTHER_CODES = ("one_hot", "gaussian", "clip", "clip+white", "sbert")


def _aligned(*changes: Mapping[str, Any], **more: Any) -> LearningRow:
    config: dict[str, Any] = {"attention_weight": 2.0}
    for change in changes:
        config |= change
    return LearningRow(config | more)


FROM_BEFORE: dict[str, LearningRow] = {
    "nothing": LearningRow(),
    **{f"codes: {codes}": LearningRow(codes=codes) for codes in OTHER_CODES},
    **{
        f"attention_weight {weight}": LearningRow({"attention_weight": weight})
        for weight in (0.5, 1.0, 2.0, 4.0)
    },
    "views used twice": LearningRow(trainer=Views2),
    "views used 4 times": LearningRow(trainer=Views),
    "views used 8 times": LearningRow(trainer=Views8),
    "half of a batch from the newest fifth": LearningRow(trainer=Recent),
    "images by the student's loss": LearningRow(trainer=Priority),
    **{f"student_lr {rate}": LearningRow({"student_lr": rate}) for rate in (0.05, 0.1, 0.4)},
    "student batch 128": LearningRow({"student_batch_size": 128}),
    "student batch 128, lr 0.1": LearningRow({"student_batch_size": 128, "student_lr": 0.1}),
    "student batch 128, 76 steps": LearningRow({"student_batch_size": 128, "student_steps": 76}),
    "student batch 128, 76 steps, lr 0.1": LearningRow(SMALLER_BATCHES),
    "76 student steps": LearningRow({"student_steps": 76}),
    "19 student steps": LearningRow({"student_steps": 19}),
    "warm-up of 1 epoch": LearningRow({"warmup_epochs": 1}),
    "warm-up of 4 epochs": LearningRow({"warmup_epochs": 4}),
    "10 generator steps": LearningRow({"generator_steps": 10}),
    "30 generator steps": LearningRow({"generator_steps": 30}),
    "images of the last step": LearningRow({"images_of_last_steps": 1}),
    "images of the last 6 steps": LearningRow({"images_of_last_steps": 6}),
    "synthesis batch 200": LearningRow({"synthesis_batch_size": 200}),
    "synthesis batch 50": LearningRow({"synthesis_batch_size": 50}),
    **{f"generator_lr {rate}": LearningRow({"generator_lr": rate}) for rate in (0.002, 0.008)},
    "CutMix on every step": LearningRow({"cutmix": 1.0}),
    **{f"temperature {t}": LearningRow({"temperature": float(t)}) for t in (2, 8)},
    **{f"averaging {share}": LearningRow({"student_averaging": share}) for share in (0.95, 0.985)},
    "bn_momentum 0.5": LearningRow({"bn_momentum": 0.5}),
    "adv_weight 0": LearningRow({"adv_weight": 0.0}),
    "adv_weight 4": LearningRow({"adv_weight": 4.0}),
    "ce_weight 2": LearningRow({"ce_weight": 2.0}),
    "bn_weight 3": LearningRow({"bn_weight": 3.0}),
    "a generator for ever": LearningRow({"generator_reset_every": 0}),
    "noise_dim 256": LearningRow({"noise_dim": 256}),
}
TOGETHER: dict[str, LearningRow] = {
    "attention, ce_weight 2": _aligned(ce_weight=2.0),
    "attention, bn_weight 3": _aligned(bn_weight=3.0),
    "attention, ce_weight 2, adv_weight 4": _aligned(ce_weight=2.0, adv_weight=4.0),
    "attention, warm-up of 1 epoch": _aligned(warmup_epochs=1),
    "attention, batch 128, lr 0.1": _aligned(SMALLER_BATCHES),
    "attention, batch 128, lr 0.2": _aligned(SMALLER_BATCHES, student_lr=0.2),
    "attention, ce_weight 2, batch 128, lr 0.1": _aligned(SMALLER_BATCHES, ce_weight=2.0),
    "attention, ce_weight 2, batch 128, lr 0.1, warm-up of 1 epoch": _aligned(
        SMALLER_BATCHES, ce_weight=2.0, warmup_epochs=1
    ),
    "12 epochs in all": LearningRow(TWELVE),
    "12 epochs in all, ce_weight 2": LearningRow({**TWELVE, "ce_weight": 2.0}),
    "12 epochs in all, attention": _aligned(TWELVE),
    "12 epochs in all, attention, ce_weight 2": _aligned(TWELVE, ce_weight=2.0),
    "12 epochs in all, attention, one-hot codes": LearningRow({**TWELVE, "attention_weight": 2.0}, "one_hot"),
    "12 epochs in all, attention, batch 128, lr 0.1": _aligned(TWELVE, SMALLER_BATCHES),
    "12 epochs in all, attention, ce_weight 2, batch 128, lr 0.1": _aligned(
        TWELVE, SMALLER_BATCHES, ce_weight=2.0
    ),
    "60 epochs in all": LearningRow(SIXTY, epochs=60),
    "60 epochs in all, attention": replace(_aligned(SIXTY), epochs=60),
    "60 epochs in all, attention, ce_weight 2": replace(_aligned(SIXTY, ce_weight=2.0), epochs=60),
    "60 epochs in all, attention, ce_weight 2, batch 128, lr 0.1": replace(
        _aligned(SIXTY, SMALLER_BATCHES, ce_weight=2.0), epochs=60
    ),
}
FROM_NOW: dict[str, LearningRow] = {
    "now": LearningRow(),
    "now, 12 epochs in all": LearningRow(TWELVE),
    "now, all 200 epochs": LearningRow(epochs=200),
    **{f"now, codes: {codes}": LearningRow(codes=codes) for codes in OTHER_CODES},
    "now, no attention": LearningRow({"attention_weight": 0.0}),
    "now, attention_weight 1": LearningRow({"attention_weight": 1.0}),
    "now, bn_weight 1.5": LearningRow({"bn_weight": 1.5}),
    "now, bn_weight 10, ce_weight 2": LearningRow({"bn_weight": 10.0, "ce_weight": 2.0}),
    "now, 38 student steps": LearningRow({"student_steps": 38}),
    "now, 10 generator steps": LearningRow({"generator_steps": 10}),
    "now, no CutMix": LearningRow({"cutmix": 0.0}),
    "now, temperature 8": LearningRow({"temperature": 8.0}),
    "now, student_lr 0.05": LearningRow({"student_lr": 0.05}),
    "now, adv_weight 0": LearningRow({"adv_weight": 0.0}),
    "now, adv_weight 4": LearningRow({"adv_weight": 4.0}),
}
ROWS: dict[str, LearningRow] = {
    name: replace(row, config={**base, **row.config})
    for base, rows in ((BEFORE, FROM_BEFORE), (BEFORE, TOGETHER), (NOW, FROM_NOW))
    for name, row in rows.items()
}


def main() -> None:
    """Run what is missing and print the table."""
    args = tables.rows_parser(__doc__).parse_args()
    cifar10.require_data()
    stored_rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    print("| | seeds | epochs 6 to 12 % | last % | each | epochs to 31.6 % |\n|---|---|---|---|---|---|")
    for name in args.rows or list(ROWS):
        rows = [row for row in stored_rows if row["row"] == name and row["seed"] in args.seeds]
        for seed in sorted(set(args.seeds) - {row["seed"] for row in rows}):
            rows.append(run(name, seed))
            with RESULTS.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
        print(as_line(name, [row["accuracies"] for row in rows]), flush=True)


def run(name: str, seed: int) -> dict[str, Any]:
    """Go through the first epochs of a row.

    Returns:
        The accuracy of what a client would get after each epoch that follows the warm-up.
    """
    row = ROWS[name]
    prepared = cifar10.prepare("paper-cifar10", row.config, row.codes, seed)
    prepared.method.trainer.__class__ = row.trainer
    images = cifar10.load_images()
    accuracies: list[float] = []

    def after_epoch() -> None:
        if prepared.is_past_warm_up:
            accuracies.append(round(prepared.accuracy(images), 4))

    prepared.run.go_on(after_epoch=after_epoch, should_stop=lambda: len(accuracies) >= row.epochs)
    return {"row": name, "seed": seed, "accuracies": accuracies, "machine": machine.describe()}


def as_line(name: str, curves: list[list[float]]) -> str:
    """One line of the table."""
    early = [100 * statistics.mean(curve[5:12]) for curve in curves]
    last = [100 * curve[-1] for curve in curves]
    epochs_to_target = [
        next((i + 1 for i, accuracy in enumerate(c) if accuracy >= TARGET_ACCURACY), math.inf) for c in curves
    ]
    each = " ".join(f"{accuracy:.1f}" for accuracy in last)
    cells = [str(len(curves)), tables.spread(early, 1), tables.spread(last, 1), each]
    return f"| {' | '.join([name, *cells, ' '.join(str(epoch) for epoch in epochs_to_target)])} |"


if __name__ == "__main__":
    main()
