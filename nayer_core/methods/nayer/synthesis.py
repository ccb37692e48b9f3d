"""One synthesis round: lines 5 to 10 of Algorithm 1."""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.hardware.frozen_batch_norm import fixed_functions
from nayer_core.hardware.machine import Losses, Machine
from nayer_core.hardware.optimizers import Adam
from nayer_core.images.memory_bank import to_bytes
from nayer_core.methods.nayer.ablations import build_noisy_layer, generator_input_dim, label_codes
from nayer_core.methods.nayer.noisy_layer import NoisyLayer
from nayer_core.methods.parts.bn_regularization import BNRegularization
from nayer_core.methods.parts.generator import build_generator
from nayer_core.methods.parts.image_priors import INPUT_STATISTICS, input_statistics_distance, weight_of
from nayer_core.running.checkpoint import below
from nayer_core.running.method import Distillands, Step
from nayer_core.tasks.task import Task

ADAM_BETAS = (0.5, 0.999)  # authors
CONVERGED_CE = 0.1  # L_CE below which a round has converged (Table 4)


@dataclass(frozen=True)
class Round:
    """The result of a round.

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
    """Generator, noisy layer, and the statistics that the images have to match.

    Args:
        distillands: teacher, label embeddings and image size; the student comes with each round.
        config: the numbers of Eq. 5 and of the loops.
        task: chooses the labels and compares outputs.
        machine: where the steps are computed.
    """

    def __init__(self, distillands: Distillands, config: DistillConfig, task: Task, machine: Machine):
        self.teacher = distillands.teacher
        self.augment = distillands.augment
        self.config = config
        self.task = task
        self.machine, self.rng = machine, machine.rng
        self.label_codes = label_codes(distillands.label_embeddings, config)  # (K, code_dim)
        input_dim = generator_input_dim(self.label_codes.shape, config)
        generator = build_generator(
            config.generator, input_dim, config.generator_width, distillands.input_size
        )
        self.generator = generator.to(self.label_codes.device)
        self.noisy_layer = self._new_noisy_layer()
        self.batch_statistics = machine.batch_statistics
        self.bn_regularization = BNRegularization(self.teacher, config.bn_momentum, self.batch_statistics)
        self.prior_weight = weight_of(INPUT_STATISTICS, self.teacher, config)
        if config.bn_scale == "noise":
            self.bn_regularization.relative_to_noise(self.teacher, distillands.input_size)

    def redraw_generator(self) -> None:
        """Start a new generator and a new BatchNorm before it; the average of the statistics is kept."""
        self.generator.redraw(self.rng)
        self.noisy_layer.reset(self.rng)

    def run_round(self, round_index: int, student: nn.Module | None) -> Generator[Step, None, Round]:
        """Redraw the noisy layer, train it with the generator for g steps, choose the best images.

        Args:
            round_index: which round of the run this is, from 0.
            student: the adversary of Eq. 5; None in warm-up, where the term is left out.

        Yields:
            Each step but the last.

        Returns:
            The round. Of all networks, only generator and noisy layer have changed.
        """
        kind = "warmup" if student is None else "adversarial"
        self.noisy_layer.redraw(self.rng)  # line 5
        labels = self.task.targets(self.config.synthesis_batch_size, round_index, self.rng)  # (B,)
        batch_codes = self.label_codes[labels]  # line 6: (B,) -> (B, code_dim)
        parameters = [*self.generator.parameters(), *self.noisy_layer.parameters()]
        optimizer = Adam(parameters, self.config.generator_lr, betas=ADAM_BETAS)
        best = BestImages(self.config.images_of_last_steps)
        with self.bn_regularization.watching(), fixed_functions(self.teacher, student):
            for step in range(self.config.generator_steps):  # line 7
                views = self.augment.draw(len(labels), self.rng)  # (B, 3)
                losses = self.machine.update(  # lines 8 to 10
                    optimizer,
                    partial(self._loss, student),
                    whole=(batch_codes,),
                    rows=(labels, views),
                    kind=(kind, self.bn_regularization.has_average),
                )
                images, *statistics = losses.outputs
                best.update(images, losses.total, losses.terms)
                if step < self.config.generator_steps - 1:
                    yield Step(kind)
        self.bn_regularization.end_round(statistics)
        return self._result(best, labels)

    def _loss(self, student: nn.Module | None, batch_codes: Tensor, labels: Tensor, views: Tensor) -> Losses:
        """Lines 8 and 9: make images, and compute Eq. 5 on them.

        Args:
            student: the adversary, or None.
            batch_codes: (B, code_dim), of the whole batch: consecutive rows share a Linear.
            labels: (b,), of the images of this process: b = B unless several processes share the batch.
            views: (b, 3), the augmentation of these images.
        """
        config = self.config
        generator_input = self.machine.own_rows(self.noisy_layer(batch_codes))  # (b, noise_dim)
        images = self.generator(generator_input).float()  # (b, C, H, W)
        # (b, C, H, W) -> (b, H, W, C) -> (b, C, H, W)
        inputs = self.augment(images.permute(0, 2, 3, 1), views)
        teacher_logits = self.teacher(inputs)  # (b, K)
        terms = {"ce": self.task.target_loss(teacher_logits, labels)}
        total = config.ce_weight * terms["ce"]
        statistics: list[Tensor] = []
        if self.bn_regularization:
            terms["bn"], statistics = self.bn_regularization.loss()
            total = total + config.bn_weight * terms["bn"]
        if self.prior_weight:
            terms["prior"] = input_statistics_distance(inputs, self.batch_statistics)
            total = total + self.prior_weight * terms["prior"]
        if student is not None:
            bounded = config.adversary == "js"
            terms["adv"] = self.task.adversarial_loss(student(inputs), teacher_logits, bounded=bounded)
            total = total + config.adv_weight * terms["adv"]
        return Losses(total, terms, (images, *statistics))

    def _result(self, best: "BestImages", labels: Tensor) -> Round:
        own = [to_bytes(images.float()) for images in best.images]  # (b, H, W, C) each
        images = torch.cat([self.machine.all_rows(part, len(labels)) for part in own])  # (N, H, W, C)
        terms = {**best.terms, "generator_loss": best.loss}
        return Round(images, labels.repeat(len(own)), terms, best.converged_after)

    def snapshot(self) -> dict[str, Tensor]:
        """Copy the state that the next round depends on; the Linear layers are redrawn in any case."""
        state = {f"generator.{name}": value.clone() for name, value in self.generator.state_dict().items()}
        for name, value in self.noisy_layer.lasting_state().items():
            state[f"noisy_layer.{name}"] = value.clone()
        for name, value in self.bn_regularization.lasting_state().items():
            state[f"average.{name}"] = value
        return state | {"rng": self.rng.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Return to a snapshot; without `rng` in it, the random numbers continue unchanged."""
        self.generator.load_state_dict(below(state, "generator"))
        self.noisy_layer.restore(below(state, "noisy_layer"))
        self.bn_regularization.restore(below(state, "average"))
        if "rng" in state:
            self.rng.set_state(state["rng"])

    def adopt(self, config: DistillConfig) -> None:
        """Continue with another batch size or learning rate; the state that outlives a round is kept."""
        lasting = self.noisy_layer.lasting_state()
        self.config = config
        self.noisy_layer = self._new_noisy_layer()
        self.noisy_layer.restore(lasting)

    def _new_noisy_layer(self) -> NoisyLayer:
        return build_noisy_layer(self.label_codes.shape, self.config).to(self.label_codes.device)


class BestImages:
    """Selects the images of a round that go to the bank, without waiting for the device.

    Args:
        last_steps: take the images of this many last steps; 0 takes the step with the lowest loss.

    Attributes:
        loss: the lowest loss, a scalar on the device.
        terms: the loss terms of that step.
        converged_after: steps until L_CE fell below 0.1; inf if it has not.
    """

    def __init__(self, last_steps: int):
        self.loss: Tensor
        self.terms: dict[str, Tensor] = {}
        self.converged_after: Tensor
        self._images: Tensor | None = None
        self._latest: deque[Tensor] = deque(maxlen=last_steps)
        self._steps = 0

    @property
    def images(self) -> list[Tensor]:
        """The images of each selected step, (b, C, H, W) each."""
        best = [] if self._images is None else [self._images]
        return list(self._latest) or best

    def update(self, images: Tensor, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Take the images of a step if its loss is the lowest so far, or if it is among the last steps."""
        self._steps += 1
        self._latest.append(images)
        converged = torch.where(terms["ce"] < CONVERGED_CE, self._steps, torch.inf)
        if self._images is None:
            self._images = images
            self.loss, self.terms = loss.nan_to_num(nan=torch.inf), terms
            self.converged_after = converged
            return
        self.converged_after = torch.minimum(self.converged_after, converged)
        better = loss < self.loss  # never true for NaN
        self._images = torch.where(better, images, self._images)
        self.terms = {name: torch.where(better, terms[name], self.terms[name]) for name in terms}
        self.loss = torch.where(better, loss, self.loss)
