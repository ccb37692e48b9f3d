"""Terms and image sources that were tried where the teacher has no BatchNorm, and are not part of the method.

Each term is a function of what one forward pass of the teacher shows. Results: results/image_priors.md.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.runs import PreparedRun
from nayer_core.contract.config import DistillConfig
from nayer_core.hardware.machine import Losses
from nayer_core.methods.nayer.ablations import generator_input_dim
from nayer_core.methods.parts.generator import Generator, build_generator

DISTANCE = 1 / 32  # of the side: at which the roughness of images is compared
ROUGHNESS = 0.12  # MNIST has 0.15, Fashion-MNIST 0.12, CIFAR-10 0.08, letters of 96 pixels 0.07
SMOOTHING = 0.1  # of the one-hot target whose logits the feature target has (CPNet)
LEAST_SINGULAR_VALUE = 0.1  # CPNet
HEADS = 3  # of the transformer that the patch entropy was tried on


@dataclass
class Seen:
    """What a forward pass of the teacher shows.

    Args:
        head: the teacher's last Linear.
        inputs: (B, C, H, W) normalised images.
        features: (B, dim), the inputs of the head.
        labels: (B,).
        tokens: (B, 1 + N, C) of each block: attention times values, a class token and the patches.
    """

    head: nn.Linear
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    features: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    tokens: list[Tensor] = field(default_factory=list)


Term = Callable[[Seen], Tensor]


@contextmanager
def seeing(teacher: nn.Module) -> Iterator[Seen]:
    """Observe the teacher's forward passes during the block."""
    seen = Seen([layer for layer in teacher.modules() if isinstance(layer, nn.Linear)][-1])

    def note_inputs(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.inputs, seen.tokens = inputs[0].float(), []

    def note_tokens(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.tokens.append(inputs[0].float())

    def note_features(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.features = inputs[0].float()

    hooks = [
        teacher.register_forward_pre_hook(note_inputs),
        seen.head.register_forward_pre_hook(note_features),
        *(
            layer.register_forward_pre_hook(note_tokens)
            for name, layer in teacher.named_modules()
            if name.endswith("attn.proj")
        ),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def total_variation(seen: Seen) -> Tensor:
    """Mean absolute difference of neighbours, both ways (DeepInversion's R_TV, as a mean)."""
    rows, columns = (seen.inputs[..., 1:, :] - seen.inputs[..., :-1, :]), seen.inputs.diff(dim=3)
    return rows.abs().mean() + columns.abs().mean()


def squares(seen: Seen) -> Tensor:
    """Mean square of the normalised images (DeepInversion's R_l2, as a mean)."""
    return seen.inputs.square().mean()


def activation(seen: Seen) -> Tensor:
    """Reward strong features (DAFL's L_a, as a mean)."""
    return -seen.features.abs().mean()


def feature_target(seen: Seen) -> Tensor:
    """1 - the cosine to the smallest features for which the classifier gives a smoothed one-hot (CPNet)."""
    return 1 - F.cosine_similarity(seen.features, _target_features(seen)).mean()


def feature_difference(seen: Seen) -> Tensor:
    """CPNet's own form: |cosine| of the difference from those features and the classes' common direction."""
    common = _inverse(seen.head).sum(dim=1)[None]  # (1, dim)
    return F.cosine_similarity(seen.features - _target_features(seen), common).abs().mean()


def _target_features(seen: Seen) -> Tensor:
    """(B, dim): the features f* = (delta y - b) W+."""
    classes = len(seen.head.weight)
    delta = math.log((1 - SMOOTHING) * (classes - 1) / SMOOTHING)
    logits = delta * F.one_hot(seen.labels, classes) - seen.head.bias  # (B, K)
    return logits @ _inverse(seen.head).T


def _inverse(head: nn.Linear) -> Tensor:
    """Pseudo-inverse of the weights, (dim, K), with singular values of at least 0.1."""
    left, values, right = torch.linalg.svd(head.weight.float(), full_matrices=False)
    inverse: Tensor = (right.T / values.clamp(min=LEAST_SINGULAR_VALUE)) @ left.T
    return inverse


def excess_roughness(seen: Seen) -> Tensor:
    """How far close pixels differ more than those of data do: zero below the bound, relative to it above.

    Roughness is half the mean square of the difference of pixels at a distance, in units of the variance.
    """
    inputs, side = seen.inputs, min(seen.inputs.shape[2:])
    variance = inputs.var(dim=(0, 2, 3), correction=0).clamp(min=1e-3)  # (C,)
    total = inputs.new_zeros(())
    for distance in sorted({1, max(1, round(side * DISTANCE)), max(1, round(2 * side * DISTANCE))}):
        down = (inputs[..., distance:, :] - inputs[..., :-distance, :]).square().mean(dim=(0, 2, 3))
        across = (inputs[..., distance:] - inputs[..., :-distance]).square().mean(dim=(0, 2, 3))
        rough = ((down + across) / (4 * variance)).mean()
        total = total + F.relu(rough / min(0.9, ROUGHNESS * distance / (side * DISTANCE)) - 1)
    return total


def patch_entropy(seen: Seen) -> Tensor:
    """PSAQ-ViT's reward: the entropy of the similarities of an image's patches, as a mean over blocks."""
    return -torch.stack([_similarity_entropy(tokens) for tokens in seen.tokens]).mean()


def _similarity_entropy(tokens: Tensor) -> Tensor:
    batch, length, channels = tokens.shape
    heads = tokens[:, 1:].reshape(batch, length - 1, HEADS, channels // HEADS)
    directions = F.normalize(heads.mean(dim=2), dim=2)  # (B, N, C / heads)
    similarities = (directions @ directions.transpose(1, 2)).float().flatten(1)  # (B, N, N) -> (B, N * N)
    fixed = similarities.detach()
    lowest, highest = fixed.amin(dim=1, keepdim=True), fixed.amax(dim=1, keepdim=True)  # (B, 1) each
    points = torch.lerp(lowest, highest, torch.linspace(0, 1, 10))  # (B, 10)
    width = (1.06 * fixed.std(dim=1, keepdim=True) * similarities.shape[1] ** -0.2).clamp(min=1e-4)
    distances = (points[:, :, None] - similarities[:, None]) / width[:, :, None]  # (B, 10, N * N)
    density = torch.exp(-distances.square() / 2).mean(dim=2) / (width * math.sqrt(2 * math.pi))
    density = density.clamp(min=1e-4)
    entropy: Tensor = torch.trapezoid(-density * density.log(), points, dim=1).mean()
    return entropy


@contextmanager
def added_to(prepared: PreparedRun, terms: Mapping[Term, float]) -> Iterator[None]:
    """During the block, add weighted terms to the loss of a run's synthesis."""
    synthesizer: Any = prepared.method.synthesizer
    plain = synthesizer._loss
    with seeing(synthesizer.teacher) as seen:

        def with_terms(student: nn.Module | None, codes: Tensor, labels: Tensor, views: Tensor) -> Losses:
            losses = plain(student, codes, labels, views)
            seen.labels = labels
            total = losses.total + sum(weight * term(seen) for term, weight in terms.items())
            return Losses(total, losses.terms, losses.outputs)

        if terms:
            synthesizer._loss = with_terms
        yield


def halve(synthesizer: Any, input_size: tuple[int, int, int]) -> None:
    """Make the generator's images half as high and wide, and upsample them: they become smooth."""
    channels, height, width = input_size
    config: DistillConfig = synthesizer.config
    generator = build_generator(
        config.generator,
        generator_input_dim(synthesizer.label_codes.shape, config),
        config.generator_width,
        (channels, math.ceil(height / 2), math.ceil(width / 2)),
    )
    synthesizer.generator = Upsampled(generator, (height, width))


class Upsampled(nn.Module):
    """A generator of images of half the size, with bilinear upsampling behind it."""

    def __init__(self, generator: Generator, size: tuple[int, int]):
        super().__init__()
        self.generator = generator
        self.size = size

    def forward(self, generator_input: Tensor) -> Tensor:
        """Make images, (B, channels, height, width) in [0, 1]."""
        return F.interpolate(self.generator(generator_input), size=self.size, mode="bilinear")

    def redraw(self, rng: torch.Generator) -> None:
        """Draw all weights again."""
        self.generator.redraw(rng)
