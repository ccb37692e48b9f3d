"""One synthesis round: lines 5 to 11 of Algorithm 1."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.hardware.cuda_graphs import Recorder
from nayer_core.hardware.frozen_batch_norm import frozen_batch_norms
from nayer_core.hardware.optimizers import Adam
from nayer_core.hardware.precision import Arithmetic
from nayer_core.hardware.processes import ALONE, Alone
from nayer_core.methods.nayer.ablations import build_noisy_layer, generator_codes, noisy_layer_output
from nayer_core.methods.nayer.noisy_layer import sweep_labels
from nayer_core.methods.parts.augmentation import Augmentation
from nayer_core.methods.parts.bn_regularization import BNRegularization
from nayer_core.methods.parts.generator import build_generator
from nayer_core.methods.parts.image_prior import input_statistics_distance
from nayer_core.methods.parts.losses import adversarial_loss, label_cross_entropy
from nayer_core.methods.parts.memory_bank import to_bytes
from nayer_core.running.checkpoint import part

ADAM_BETAS = (0.5, 0.999)  # authors
CONVERGED_CE = 0.1  # what "convergence time" waits for (Table 4)


@dataclass(frozen=True)
class Round:
    """What a round made.

    Args:
        images: (N, H, W, C) uint8, un-augmented.
        labels: (N,) the classes they were made for.
        terms: the loss terms of the step with the lowest loss, unweighted, as scalars on the device.
        converged_after: steps until L_CE fell below 0.1, a scalar on the device; inf if it never did.
    """

    images: Tensor
    labels: Tensor
    terms: dict[str, Tensor]
    converged_after: Tensor


class Synthesizer:
    """Generator, noisy layer and the statistics they have to fit.

    Args:
        teacher: frozen, in eval mode.
        lte: (K, embedding_dim) label-text embeddings.
        input_size: (channels, height, width).
        config: the numbers of Eq. 5 and of the loops.
        augment: stands between the images and the networks.
        arithmetic: number format.
        rng: source of everything random here.
        recorder: does the steps.
        processes: who shares the batches.
    """

    def __init__(
        self,
        teacher: nn.Module,
        lte: Tensor,
        input_size: tuple[int, int, int],
        config: DistillConfig,
        augment: Augmentation,
        arithmetic: Arithmetic,
        rng: torch.Generator,
        recorder: Recorder,
        processes: Alone = ALONE,
    ):
        self.teacher = teacher
        self.processes = processes
        self.config = config
        self.augment = augment
        self.arithmetic = arithmetic
        self.rng = rng
        self.recorder = recorder
        self.codes = generator_codes(lte, config)
        self.noisy_layer = build_noisy_layer(self.codes.shape, config).to(lte.device)
        noise_dim = noisy_layer_output(self.codes.shape, config)
        generator = build_generator(config.generator, noise_dim, config.generator_width, input_size)
        self.generator = generator.to(lte.device).to(memory_format=torch.channels_last)
        self.bn_regularization = BNRegularization(teacher, config.bn_momentum, processes)

    def adopt(self, config: DistillConfig) -> None:
        """Go on with another batch size or learning rate; what outlives a round stays."""
        lasting = self.noisy_layer.lasting_state()
        self.config = config
        self.noisy_layer = build_noisy_layer(self.codes.shape, config).to(self.codes.device)
        self.noisy_layer.restore(lasting)
        self.recorder.forget()

    def redraw_generator(self) -> None:
        """Start a new generator and a new BatchNorm before it; the statistics' average lives on."""
        self.generator.redraw(self.rng)
        self.noisy_layer.reset(self.rng)

    def run_round(
        self,
        round_index: int,
        student: nn.Module | None,
        after_step: Callable[[], None] = lambda: None,
    ) -> Round:
        """Redraw the noisy layer, train it with the generator for g steps, keep the best images.

        Args:
            round_index: which round of the run this is, from 0.
            student: the adversary of Eq. 5; None in warm-up, where the term is left out.
            after_step: called after every generator step; may raise to stop.
        """
        config = self.config
        self.noisy_layer.redraw(self.rng)
        labels = sweep_labels(self.codes.shape[0], config.synthesis_batch_size, round_index, self.rng)
        embeddings = self.codes[labels]
        parameters = [*self.generator.parameters(), *self.noisy_layer.parameters()]
        optimizer = Adam(parameters, config.generator_lr, betas=ADAM_BETAS)
        scaler = self.arithmetic.scaler()
        harvest = _Harvest(labels, config.images_of_last_steps)
        kind = ("synthesis", student is None, self.bn_regularization.has_average)
        with self.bn_regularization.watching(), frozen_batch_norms(self.teacher), _frozen(student):
            for _ in range(config.generator_steps):
                made = self.recorder.run(
                    kind, partial(self._step, student, scaler), (embeddings, labels), parameters
                )
                harvest.offer(made.images, made.terms)
                self.processes.add_up(parameters)
                scaler.step(optimizer)  # type: ignore[arg-type] # all it asks for is there
                scaler.update()
                optimizer.zero_grad()
                after_step()
        self.bn_regularization.end_round(made.statistics)
        return harvest.round(self.processes)

    def _step(
        self, student: nn.Module | None, scaler: torch.amp.GradScaler, embeddings: Tensor, labels: Tensor
    ) -> "_Step":
        """Lines 7 to 9: make images, and leave the gradients of Eq. 5 with generator and noisy layer."""
        with self.arithmetic.autocast():
            noise = self.processes.share(self.noisy_layer(embeddings))
            with self.processes.whole_batch_norm():
                images = self.generator(noise)
            loss, terms, statistics = self._loss(images.float(), labels, student)
        scaler.scale(self.processes.weigh(loss, len(labels))).backward()
        totals = self.processes.totals({"loss": loss, **terms}, len(labels))
        return _Step(images.detach(), totals, statistics)

    def snapshot(self) -> dict[str, Tensor]:
        """Copy all that the next round depends on; the Linear layers are redrawn in any case."""
        state = {f"generator.{name}": value.clone() for name, value in self.generator.state_dict().items()}
        for name, value in self.noisy_layer.lasting_state().items():
            state[f"noisy_layer.{name}"] = value.clone()
        for name, value in self.bn_regularization.lasting_state().items():
            state[f"average.{name}"] = value
        return state | {"rng": self.rng.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a snapshot."""
        self.generator.load_state_dict(part(state, "generator"))
        self.noisy_layer.restore(part(state, "noisy_layer"))
        self.bn_regularization.restore(part(state, "average"))
        self.rng.set_state(state["rng"])

    def _loss(
        self, images: Tensor, labels: Tensor, student: nn.Module | None
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """Eq. 5: the weighted sum, its terms, and the statistics that L_BN compared."""
        placed = self.processes.spread(images.permute(0, 2, 3, 1), len(labels))
        inputs = self.processes.share(self.augment(placed, self.rng))
        teacher_logits = self.teacher(inputs)
        terms = {"ce": label_cross_entropy(teacher_logits, self.processes.share(labels))}
        loss = self.config.ce_weight * terms["ce"]
        statistics: list[Tensor] = []
        if self.bn_regularization:
            terms["bn"], statistics = self.bn_regularization.loss()
            loss = loss + self.config.bn_weight * terms["bn"]
        elif self.config.image_prior_weight:
            terms["prior"] = input_statistics_distance(inputs, self.processes)
            loss = loss + self.config.image_prior_weight * terms["prior"]
        if student is not None:
            terms["adv"] = adversarial_loss(student(inputs), teacher_logits)
            loss = loss + self.config.adv_weight * terms["adv"]
        return loss, terms, statistics


@dataclass(frozen=True)
class _Step:
    """What a generator step made; the next one may write over it.

    Args:
        images: (B, C, H, W) in [0, 1], this process's share.
        terms: "loss", the weighted sum of Eq. 5, and its terms, as scalars.
        statistics: (2, C) of the inputs of each of the teacher's BatchNorm layers.
    """

    images: Tensor
    terms: dict[str, Tensor]
    statistics: list[Tensor]


class _Harvest:
    """The images of a round that go to the bank, chosen without waiting for the device.

    Args:
        labels: (B,) the classes all images of the round are made for.
        last_steps: how many last steps' images to take; 0 takes the step with the lowest loss.
    """

    def __init__(self, labels: Tensor, last_steps: int):
        self.labels = labels
        self.best_images: Tensor | None = None
        self.best_loss = torch.full((), torch.inf, device=labels.device)
        self.terms: dict[str, Tensor] = {}
        self.latest: deque[Tensor] = deque(maxlen=last_steps)
        self.steps = 0
        self.converged_after = self.best_loss.clone()

    def offer(self, images: Tensor, step: dict[str, Tensor]) -> None:
        """Take what is wanted of a step; all of it is copied, for the next step may write over it."""
        loss, terms = step["loss"], {name: term for name, term in step.items() if name != "loss"}
        if self.latest.maxlen:
            self.latest.append(images.clone())
        self.steps += 1
        convergence = torch.where(terms["ce"] < CONVERGED_CE, self.steps, torch.inf)
        self.converged_after = torch.minimum(self.converged_after, convergence)
        if self.best_images is None:
            self.best_images, self.best_loss = images.clone(), loss.nan_to_num(nan=torch.inf)
            self.terms = {name: term.clone() for name, term in terms.items()}
            return
        better = loss < self.best_loss  # never true for NaN
        # Written over in place: what outlives a step must not lie among what the step gives back.
        torch.where(better, images, self.best_images, out=self.best_images)
        self.terms = {name: torch.where(better, terms[name], self.terms[name]) for name in terms}
        self.best_loss = torch.where(better, loss, self.best_loss)

    def round(self, processes: Alone) -> Round:
        assert self.best_images is not None  # noqa: S101 - a round has at least one step
        chosen = list(self.latest) or [self.best_images]
        shares = [to_bytes(images.float()) for images in chosen]
        images = torch.cat([processes.gather(share, len(self.labels)) for share in shares])
        terms = {**self.terms, "generator_loss": self.best_loss}
        return Round(images, self.labels.repeat(len(chosen)), terms, self.converged_after)


@contextmanager
def _frozen(network: nn.Module | None) -> Iterator[None]:
    """Use a network as a fixed function: its statistics stay, no gradient is kept for its weights."""
    if network is None:
        yield
        return
    network.eval().requires_grad_(False)
    try:
        with frozen_batch_norms(network):
            yield
    finally:
        network.train().requires_grad_(True)
