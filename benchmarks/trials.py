"""A measured run, with the paper's metrics, and the file of outcomes.

A trial is identified by its data, label codes, configuration and seed. Trials in the file are not run
again, so an interrupted table continues where it stopped, and tables share their rows.
"""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import cifar10, machine, mnist
from benchmarks.runs import PreparedRun
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import Event, MetricsEvent
from nayer_core.hardware.precision import Arithmetic
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.measuring.quality import answers, class_diversity_score, diversity_score

RESULTS = Path(__file__).parent / "results" / "trials.jsonl"
METRICS = ("accuracy", "diversity", "class_diversity", "convergence_steps", "converged")

# The shape of the everyday presets, spelt out so that a table keeps its meaning when they change.
EVERYDAY: Mapping[str, Any] = {
    "rounds_per_epoch": 1,
    "images_of_last_steps": 3,
    "generator": "table8",
    "student_lr_schedule": "step",
    "temperature": 4.0,
    "cutmix": 0.5,
}


@dataclass(frozen=True)
class DataSet:
    """The functions of `mnist` and `cifar10` that a trial calls."""

    prepare: Callable[..., PreparedRun]
    load_images: Callable[[], EvaluationSet]


DATA: dict[str, DataSet] = {
    "mnist": DataSet(mnist.prepare, mnist.load_images),
    "cifar10": DataSet(cifar10.prepare, cifar10.load_images),
}


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        data: a name of `DATA`.
        codes: a name that its `label_codes` knows.
        config: fields of `DistillConfig` that differ from their defaults.
        seed: of the run.
    """

    data: str
    codes: str
    config: Mapping[str, Any]
    seed: int

    def identity(self) -> dict[str, Any]:
        """All that the outcome depends on; values that equal their defaults do not count."""
        config = DistillConfig.model_validate(self.config).model_dump(exclude_defaults=True)
        return {"data": self.data, "codes": self.codes, "config": config, "seed": self.seed}


class KeptTrials:
    """Finished trials in a file, one JSON object a line.

    Args:
        path: read where it exists, appended to.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines()]

    def find(self, trial: Trial) -> dict[str, Any] | None:
        """Return the outcome of `trial`; None if it has not been run."""
        identity = trial.identity()
        for row in self.rows:
            if all(row[name] == value for name, value in identity.items()):
                return row
        return None

    def outcome(self, trial: Trial) -> dict[str, Any]:
        """Return the outcome of `trial`, which is run and stored first if necessary."""
        row = self.find(trial)
        if row is not None:
            return row
        row = trial.identity() | run(trial) | {"machine": machine.describe()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        return row


def run(trial: Trial) -> dict[str, float | None]:
    """Distil once and measure.

    Returns:
        `accuracy`: of the student after the last epoch, on real images. `diversity`: mean L2
        distance between the teacher's features (of length 1) of each epoch's newest round and of
        earlier ones (Table 12). `class_diversity`: the same, pairs of one class only.
        `convergence_steps`: mean of the steps until L_CE < 0.1, over the rounds that got there,
        None where none did. `converged`: their share of all rounds.
    """
    data = DATA[trial.data]
    converged_after: list[float | None] = []

    def emit(event: Event) -> None:
        if isinstance(event, MetricsEvent) and "ce" in event.values:
            converged_after.append(event.values.get("convergence_steps"))

    prepared = data.prepare("paper-cifar10", trial.config, trial.codes, trial.seed, emit)
    archive = _Archive(prepared)
    prepared.run.go_on(after_epoch=archive.compare)
    steps_to_convergence = [steps for steps in converged_after if steps is not None]
    return {
        "accuracy": prepared.accuracy(data.load_images()),
        "diversity": statistics.mean(archive.scores),
        "class_diversity": statistics.mean(archive.class_scores),
        "convergence_steps": statistics.mean(steps_to_convergence) if steps_to_convergence else None,
        "converged": len(steps_to_convergence) / len(converged_after),
    }


class _Archive:
    """Features of each epoch's newest round, compared with those of all earlier epochs."""

    def __init__(self, prepared: PreparedRun):
        self.bank, self.distillands = prepared.method.bank, prepared.distillands
        self.exact = Arithmetic(prepared.machine.device, torch.float32)
        self.features: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.scores: list[float] = []
        self.class_scores: list[float] = []

    def compare(self) -> None:
        images, labels = self.bank.read(self.bank.segments[-1])
        new = answers(self.distillands.teacher, images, self.distillands.augment, self.exact).features
        labels = labels.cpu()
        if self.features:
            old, old_labels = torch.cat(self.features), torch.cat(self.labels)
            self.scores.append(diversity_score(new, old))
            within = class_diversity_score(new, labels, old, old_labels)
            self.class_scores += [] if within is None else [within]
        self.features.append(new)
        self.labels.append(labels)
