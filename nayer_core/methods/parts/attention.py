"""Attention maps: a loss that brings the student's maps close to the teacher's.

Zagoruyko and Komodakis 2017 (arXiv:1612.03928), activation-based, p = 2. It is not part of NAYER. With it
the student learns from an image's attention maps as well as from the teacher's logits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Resolution = tuple[int, int]  # height, width


class AttentionAlignment:
    """Watches the last features of teacher and student at each resolution that both have.

    Args:
        teacher: in eval mode.
        student: in any mode, which does not change.
        input_size: (channels, height, width).
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, input_size: tuple[int, int, int]):
        self._layers = tuple(last_layers(network, input_size) for network in (teacher, student))
        self.resolutions = sorted(self._layers[0].keys() & self._layers[1].keys(), reverse=True)
        self._features: tuple[dict[Resolution, Tensor], ...] = ({}, {})

    def __bool__(self) -> bool:
        return bool(self.resolutions)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observe both networks' features while the block runs."""
        hooks = [
            layers[resolution].register_forward_hook(partial(_note, features, resolution))
            for layers, features in zip(self._layers, self._features, strict=True)
            for resolution in self.resolutions
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def distance(self) -> Tensor:
        """Compare the maps of the last forward passes, and forget these.

        Returns:
            Sum over resolutions of |map - map|^2, maps of length 1, mean over the batch; a scalar in
            [0, 2 * resolutions] with a gradient to the student.
        """
        teachers, students = self._features
        distances = [
            (attention_map(students[resolution]) - attention_map(teachers[resolution])).square().sum(1).mean()
            for resolution in self.resolutions
        ]
        for features in self._features:
            features.clear()
        return torch.stack(distances).sum()


def last_layers(network: nn.Module, input_size: tuple[int, int, int]) -> dict[Resolution, nn.Module]:
    """Find the module that returns a network's last features of each height and width above 1."""
    layers: dict[Resolution, nn.Module] = {}

    def note(layer: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            layers[(output.shape[2], output.shape[3])] = layer

    hooks = [layer.register_forward_hook(note) for layer in network.modules()]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *input_size, device=next(network.parameters()).device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return layers


def attention_map(features: Tensor) -> Tensor:
    """Compute how strongly features respond at each pixel.

    Args:
        features: (B, C, H, W), any float type.

    Returns:
        (B, H * W) float32, of length 1: squares summed over the channels.
    """
    energy: Tensor = _Energy.apply(features)  # (B, C, H, W) -> (B, H, W)
    return F.normalize(energy.flatten(1))  # (B, H, W) -> (B, H * W)


def _note(
    features: dict[Resolution, Tensor],
    resolution: Resolution,
    _layer: nn.Module,
    _inputs: Any,
    output: Tensor,
) -> None:
    if tuple(output.shape[2:]) == resolution:  # a layer that is used twice may serve several
        features[resolution] = output


class _Energy(torch.autograd.Function):
    """Sum of squares over channels in float32; neither pass copies the features to float32."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        # (B, C, H, W) -> (B, H, W)
        norms: Tensor = torch.linalg.vector_norm(features, dim=1, dtype=torch.float32)
        return norms.square_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        # (B, C, H, W) * (B, 1, H, W)
        gradient: Tensor = features * (2 * gradients[0]).to(features.dtype)[:, None]
        return gradient
