"""The runs that are measured: one teacher and one student each, stopped at several epochs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks import runs
from benchmarks.estimate import teachers
from benchmarks.runs import PreparedRun
from nayer_core.contract.methods import METHODS
from nayer_core.label_embeddings import text_encoders
from nayer_core.methods.nayer.algorithm import Nayer
from nayer_core.networks.registry import build

# Student epochs after which a small run is measured: a student stopped early is a bad one.
_EARLY = (1, 3, 5, 8)
# What a run changes of the preset `quick`: a smaller generator, so that many runs take minutes.
SMALL: Mapping[str, Any] = {
    "generator_width": 32,
    "noise_dim": 256,
    "epochs": _EARLY[-1],
    "bn_weight": 50.0,  # as the first runs had, whatever the preset says now
}


@dataclass(frozen=True)
class StudentRun:
    """A run.

    Args:
        teacher: a name of `teachers.NAMES`.
        student: its architecture.
        kind: of the run, a key of `KINDS`.
        seed: of the run.
    """

    teacher: str
    student: str
    kind: str = "small"
    seed: int = 0

    @property
    def epochs(self) -> tuple[int, ...]:
        """Student epochs after which the run is measured."""
        return (6, 12) if self.kind == "quick" else _EARLY

    @property
    def name(self) -> str:
        """Names the run in files."""
        return "-".join((self.teacher, self.student.replace("/", "."), self.kind, str(self.seed)))


# Kinds of runs: the preset as it is, which makes good students, and smaller ones. The last two make images
# that resemble the teacher's data less.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "quick": {},
    "small": SMALL,
    "slow": {**SMALL, "student_lr": 0.03},  # for students without BatchNorm
    "few-steps": {**SMALL, "generator_steps": 6},
    "no-prior": {**SMALL, "bn_weight": 0.0, "image_prior_weight": 0.0},
}


def cases() -> Iterator[StudentRun]:
    """Every run: first one of each teacher."""
    for name in teachers.NAMES:
        yield StudentRun(name, "wrn_10_1") if name.startswith("cifar") else StudentRun(name, "lenet5", "slow")
    for name in teachers.NAMES:
        yield StudentRun(name, "wrn_10_1", "quick", seed=2)
    for name in teachers.NAMES:
        yield StudentRun(name, "wrn_10_1", "few-steps" if name.endswith("net") else "no-prior", seed=1)
    yield StudentRun(
        "fashion-lenet", "lenet5"
    )  # the rate is too high: a student that says the same of all images


def prepare(case: StudentRun) -> PreparedRun:
    """Set a run up as the service would with the preset `quick`.

    Raises:
        DataAbsent: the teacher cannot be had on this machine.
    """
    teacher = teachers.load(case.teacher)
    data = teacher.images
    overrides = {**KINDS[case.kind], "flip": data.flip}
    _, config = METHODS["nayer"].resolve_config("quick", overrides, data.size)
    embedded = text_encoders.embed("gaussian", "a photo of a {label}", data.labels)
    codes, _ = text_encoders.prepare(embedded.label_embeddings, whiten=True)
    torch.manual_seed(case.seed)
    student = build(case.student, num_classes=len(data.labels), input_size=data.size)
    return runs.prepare(
        teacher.network, student, codes, data.size, config,
        normalization=(data.mean, data.std), seed=case.seed,
    )  # fmt: skip


def snapshots(case: StudentRun) -> Iterator[tuple[int, PreparedRun]]:
    """Run to each of the case's epochs in turn; the run goes on behind the caller's measurements."""
    prepared = prepare(case)
    method = prepared.method
    for epoch in case.epochs:
        until = prepared.run.plan.warmup_epochs + epoch
        prepared.run.go_on(should_stop=partial(_is_past, method, until))
        yield epoch, prepared


def _is_past(method: Nayer, epoch: int) -> bool:
    return method.epoch >= epoch
