"""The seam between a run and its method: a method yields its steps, the run drives it.

A method owns networks, bank and loops. The run counts its steps, reports their measurements, saves and stops
it, and does not know what a step does. To add a method, write a class of this protocol and one entry in
`nayer_core.contract.methods.METHODS`.
"""

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from nayer_core.contract.events import Phase, WarningEvent
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.images.augmentation import Augmentation
from nayer_core.images.memory_bank import MemoryBank
from nayer_core.networks.registry import InputSize
from nayer_core.running.estimate import Estimate

Result = TypeVar("Result")


@dataclass(frozen=True)
class Distillands:
    """The inputs of every method.

    Args:
        teacher: frozen, in eval mode, on the device.
        student: freshly initialised, on the device.
        label_embeddings: (K, embedding_dim), one row for each class name.
        input_size: (channels, height, width).
        augment: crop, mirroring and normalisation, applied to images before a network.
    """

    teacher: nn.Module
    student: nn.Module
    label_embeddings: Tensor
    input_size: InputSize
    augment: Augmentation


@dataclass(frozen=True)
class StepPlan:
    """The steps of one kind.

    Args:
        count: in the whole run.
        images: size of a step's batch.
        batch: name of the configuration's field with that size.
        phase: the part of the job that these steps belong to.
        relative_cost: per image, relative to the method's other kinds; used until a step has been timed.
    """

    count: int
    images: int
    batch: str
    phase: Phase
    relative_cost: float = 1.0


@dataclass(frozen=True)
class Plan:
    """The amount of work of a run; progress, estimate, measurement and bank sizes are derived from it.

    Args:
        steps: by kind, in the order in which the kinds first occur.
        epochs: of the whole run, warm-up included.
        warmup_epochs: those of them before the student's first step.
        images: number of images that the run adds to the memory bank.
        images_per_round: number that a round adds; the bank must hold at least these.
    """

    steps: Mapping[str, StepPlan]
    epochs: int
    warmup_epochs: int
    images: int
    images_per_round: int

    def bank_capacity(self, largest: int) -> int:
        """Return the bank's capacity, if the configuration allows at most `largest` images."""
        return min(max(largest, self.images_per_round), self.images)


@dataclass(frozen=True)
class Step:
    """One optimiser update.

    Args:
        kind: a key of `Plan.steps`.
        whole: the method's state is complete after this step: it can be saved and resumed.
        values: measurements by name; empty for most steps.
    """

    kind: str
    whole: bool = False
    values: Mapping[str, float] = field(default_factory=dict)


class EpochDone:
    """An epoch of the method is done; its state is complete."""


@dataclass(frozen=True)
class State:
    """The state that a method needs to continue bit by bit, apart from the bank.

    Args:
        tensors: by name.
        facts: JSON values.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Images that no student has learned from, to measure one.

    Args:
        plain: (N, H, W, C) uint8, made like the images of the bank.
        provoking: (M, H, W, C) uint8, made so that student and teacher disagree.
        measurements: of the plain images, by name.
    """

    plain: Tensor
    provoking: Tensor
    measurements: Mapping[str, float] = field(default_factory=dict)


class NotFinite(Exception):
    """A value is not a finite number; the text names it."""


class Method(Protocol):
    """A way to teach a student without data. One instance is one run.

    It is built as `Nayer(distillands, config, task, machine)`.

    Attributes:
        bank: the synthetic images that the student learns from.
        student: the network a client would get now.
        epoch: how many epochs are done.
        next_kind: the kind of step that comes next.
    """

    bank: MemoryBank

    @property
    def student(self) -> nn.Module: ...  # noqa: D102 - an attribute, see above

    @property
    def epoch(self) -> int: ...  # noqa: D102 - as above

    @property
    def next_kind(self) -> str: ...  # noqa: D102 - as above

    @staticmethod
    def plan(config: Any) -> Plan:
        """Count the steps of each kind of a run with this configuration."""

    @staticmethod
    def estimate(spec: ResolvedSpec, embedding_dim: int) -> Estimate:
        """Estimate the cost of a run.

        Args:
            spec: the run.
            embedding_dim: size of a label embedding.
        """

    def steps(self) -> Generator[Step | EpochDone, None, None]:
        """Do one step after another, from the present state to the end.

        Closing the generator after any step leaves a complete state: a round that is not finished is undone.

        Raises:
            NotFinite: the run has diverged.
        """

    def state(self) -> State:
        """Return the state after the latest whole step; the tensors may be views."""

    def restore(self, state: State) -> None:
        """Return to a state; the bank has been restored already."""

    def adopt(self, config: Any) -> None:
        """Continue with other batch sizes and learning rates."""

    def probe(self, batch: str, size: int) -> None:
        """Try some steps with another size of a batch; the method is not used afterwards.

        Args:
            batch: `StepPlan.batch` of the steps to try.
            size: images a step.
        """

    def samples(self, seed: int) -> Samples:
        """Make images for measuring the student; the state of the run does not change."""

    def warnings(self) -> list[WarningEvent]:
        """Return warnings for the client about this combination of networks and configuration."""

    def warm_up(self) -> dict[str, Tensor]:
        """Return the state after warm-up, apart from the bank; it does not depend on the student."""

    def begin_after_warm_up(self, tensors: dict[str, Tensor]) -> None:
        """Begin a new run after the warm-up of another run.

        Args:
            tensors: returned by the other run's `warm_up`; without `rng`, this run draws its own numbers.
        """


def require_finite(tensors: Iterable[Tensor], what: str = "A weight") -> None:
    """Check that no tensor holds NaN or an infinity; waits for the device once.

    Args:
        tensors: integers are ignored.
        what: name of the tensors for the error.

    Raises:
        NotFinite: one of them does.
    """
    finite = [torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()]
    if finite and not bool(torch.stack(finite).all()):
        raise NotFinite(what)


def require_finite_values(values: Mapping[str, float]) -> None:
    """Check that all of these numbers are finite.

    Raises:
        NotFinite: names those that are not.
    """
    names = [name for name, value in values.items() if not math.isfinite(value)]
    if names:
        raise NotFinite(", ".join(names))


def result_of(steps: Generator[Step, None, Result]) -> Result:
    """Do all steps of a generator, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
