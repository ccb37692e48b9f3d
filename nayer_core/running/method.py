"""The seam between a run and its method: a method yields its steps, the run drives it.

A method owns networks, bank and loops. The run counts its steps, reports what they measure, saves and stops
it, and knows nothing of what a step does. A method is added with a class of this protocol and one line in
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
    """What every method works with.

    Args:
        teacher: frozen, in eval mode, on the device.
        student: freshly initialised, on the device.
        label_embeddings: (K, embedding_dim) one vector for each class name.
        input_size: (channels, height, width).
        augment: between an image and a network: crop, mirror, normalisation.
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
        images: a step's batch.
        batch: the field of the configuration that says how large a batch is.
        phase: the part of the job that these steps belong to.
        relative_cost: of an image, compared with the method's other kinds; used until a step was timed.
    """

    count: int
    images: int
    batch: str
    phase: Phase
    relative_cost: float = 1.0


@dataclass(frozen=True)
class Plan:
    """How much a run has to do; progress, estimate, measurement and bank sizes follow from it.

    Args:
        steps: by kind, in the order in which the kinds first occur.
        epochs: of the whole run, warm-up included.
        warmup_epochs: of them, those that come before the student's first step.
        images: all that the run adds to the memory bank.
        images_per_round: what a round adds to it; the bank must hold these.
    """

    steps: Mapping[str, StepPlan]
    epochs: int
    warmup_epochs: int
    images: int
    images_per_round: int

    def bank_capacity(self, largest: int) -> int:
        """How many images the bank must have room for, where at most `largest` are kept."""
        return min(max(largest, self.images_per_round), self.images)


@dataclass(frozen=True)
class Step:
    """One optimiser update that was done.

    Args:
        kind: a key of `Plan.steps`.
        whole: the method's state is complete after this step: it can be saved and resumed.
        values: what was measured, by name; empty for most steps.
    """

    kind: str
    whole: bool = False
    values: Mapping[str, float] = field(default_factory=dict)


class EpochDone:
    """An epoch of the method is done; its state is complete."""


@dataclass(frozen=True)
class State:
    """All that a method needs to continue bit by bit, apart from the bank.

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
        plain: (N, H, W, C) uint8, made as the images of the bank are.
        provoking: (M, H, W, C) uint8, made to separate the student from its teacher.
        measurements: by name, of the plain ones.
    """

    plain: Tensor
    provoking: Tensor
    measurements: Mapping[str, float] = field(default_factory=dict)


class NotFinite(Exception):
    """Something has stopped being a finite number; the text says what."""


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
        """Say how many steps of each kind a run with this configuration has."""

    @staticmethod
    def estimate(spec: ResolvedSpec, embedding_dim: int) -> Estimate:
        """Say what a run costs.

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
        """Give the state after the latest whole step; the tensors may be views."""

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
        """Say what the client should know of this combination of networks and configuration."""

    def warm_up(self) -> dict[str, Tensor]:
        """Give what the warm-up has made, apart from the bank; no student has had a part in it."""

    def begin_after_warm_up(self, tensors: dict[str, Tensor]) -> None:
        """Take the place of the warm-up with what another run's `warm_up` gave, in a run that is new.

        Args:
            tensors: without `rng` where the run is to draw its own numbers.
        """


def require_finite(tensors: Iterable[Tensor], what: str = "A weight") -> None:
    """Check that no tensor holds NaN or an infinity; waits for the device once.

    Args:
        tensors: any; those of integers pass.
        what: names them in the error.

    Raises:
        NotFinite: one does.
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
    """Do all steps of a part of a method, and give what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
