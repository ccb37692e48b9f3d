"""L_BN of Eq. 5: the distance of the images' statistics from the teacher's running ones, layer by layer.

The authors' form: norms of the differences, not squares; biased variance; an average over rounds. From the
second round on, a batch supplies only a tenth of the matched statistics and earlier rounds supply the rest.
So the sequence of batches has to match, and single batches may differ. Without the average, a weight of 10
is ten times too strong.

The norms grow with a network's width and with the deviations of its features: the first images of a run
were at 44 under one teacher and at 428 under another. `relative_to_noise` divides them by their values on
Gaussian noise, so that a weight means much the same for every teacher: noise is at 1, its own data near 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nayer_core.hardware.frozen_batch_norm import affine_by_channel

BatchStatistics = Callable[[Sequence[Tensor]], list[Tensor]]

NOISE_IMAGES = 64
SMALLEST_SCALE = 1e-6  # of a layer that noise fits


class BNRegularization:
    """Compares the statistics of the last forward pass with the teacher's running ones.

    Args:
        teacher: in eval mode. Without a BatchNorm in it the term is zero.
        momentum: share of earlier rounds in the matched statistics.
        batch_statistics: turns (2, C) statistics of this process's images into those of the whole batch
            (`Machine.batch_statistics`); one process has the whole batch.
    """

    def __init__(self, teacher: nn.Module, momentum: float, batch_statistics: BatchStatistics = list):
        self.layers = [
            layer
            for layer in teacher.modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        self.momentum = momentum
        self.batch_statistics = batch_statistics
        self.has_average = False
        # (2, C) for each layer, mean and variance: buffers that are updated in place, as BatchNorm's own are.
        self._remembered = [_remembered(layer) for layer in self.layers]
        self._average = [torch.zeros_like(statistics) for statistics in self._remembered]
        self._scale: Tensor | None = None  # (layers, 2)
        self._observed: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self.layers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observe the teacher's BatchNorm inputs during the block; outside it, hooks would only cost time."""
        hooks = [layer.register_forward_pre_hook(self._observe) for layer in self.layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._observed = []

    @torch.no_grad()
    def relative_to_noise(self, teacher: nn.Module, input_size: tuple[int, int, int]) -> None:
        """From now on, measure distances relative to those of Gaussian noise.

        Args:
            teacher: the network whose layers these are.
            input_size: (channels, height, width) of the images.
        """
        if not self.layers:
            return
        device = self._remembered[0].device
        noise = torch.randn(NOISE_IMAGES, *input_size, generator=torch.Generator().manual_seed(0))
        with self.watching():
            teacher(noise.to(device).contiguous(memory_format=torch.channels_last))
            self._scale = self._distances(self._observed).clamp_min(SMALLEST_SCALE)

    def loss(self) -> tuple[Tensor, list[Tensor]]:
        """Compare means and variances with the running ones, and forget the forward pass.

        Returns:
            Scalar >= 0 with a gradient to the images of the last forward pass: the sum over layers of
            |mean - running mean| + |variance - running variance|, or the mean over layers of their ratios to
            noise. And the statistics of these images, without a gradient.
        """
        observed, self._observed = self.batch_statistics(self._observed), []
        matched = [
            torch.lerp(statistics, average, self.momentum) if self.has_average else statistics
            for statistics, average in zip(observed, self._average, strict=True)
        ]
        distances = self._distances(matched)  # (layers, 2)
        total = distances.sum() if self._scale is None else (distances / self._scale).mean()
        return total, [statistics.detach() for statistics in observed]

    def _distances(self, matched: Sequence[Tensor]) -> Tensor:
        """Norms of the differences from the running statistics: (layers, 2), means and variances."""
        differences = zip(matched, self._remembered, strict=True)
        # layers x (2, C) -> layers x (2,) -> (layers, 2)
        return torch.stack([torch.linalg.vector_norm(own - kept, dim=1) for own, kept in differences])

    def end_round(self, last: Sequence[Tensor]) -> None:
        """Update the average over rounds with the statistics of the round's last step."""
        for average, statistics in zip(self._average, last, strict=True):
            average.copy_(torch.lerp(statistics, average, self.momentum) if self.has_average else statistics)
        self.has_average = bool(self.layers)

    def lasting_state(self) -> dict[str, Tensor]:
        """Copy the state that outlives a round, by name: the average over rounds, once there is one."""
        averages = self._average if self.has_average else []
        return {str(index): average.clone() for index, average in enumerate(averages)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Return to a `lasting_state`."""
        self.has_average = bool(state)
        for name, value in state.items():
            self._average[int(name)].copy_(value)

    def _observe(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._observed.append(channel_statistics(inputs[0]))


def is_experimental(teacher: nn.Module) -> bool:
    """Whether a teacher has no running statistics, so that a prior replaces L_BN."""
    return not BNRegularization(teacher, momentum=0.0)


def channel_statistics(features: Tensor) -> Tensor:
    """Mean and biased variance of each channel over all other dimensions, in float32.

    Args:
        features: (B, C, ...), any float type.

    Returns:
        (2, C) float32.
    """
    statistics: Tensor = _ChannelStatistics.apply(features)
    return statistics


class _ChannelStatistics(torch.autograd.Function):
    """`torch.var_mean` over all dimensions but the second; both passes run at memory speed.

    On the CPU, var_mean and its gradient take 14 ms where the convolution that made the features
    takes 4 (200 x 16 x 32 x 32, bf16, channels-last, two cores); this takes 1.3
    (`python -m benchmarks.channel_statistics`). The gradient of both
    statistics is one affine function of the features in each channel.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        statistics = _moments(features)
        ctx.save_for_backward(features, statistics[0].clone())
        return statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        features, mean = ctx.saved_tensors
        # (2, C) -> 2 x (C,)
        by_mean, by_variance = gradients[0] * (features.shape[1] / features.numel())
        slope = 2 * by_variance
        return affine_by_channel(features, slope, by_mean - slope * mean)


def _moments(features: Tensor) -> Tensor:
    # The part of BatchNorm that computes statistics, in the number format of its running ones.
    unused = torch.zeros(2, features.shape[1], device=features.device)
    # (B, C, ...) -> 2 x (C,) -> (2, C)
    return torch.stack(torch.batch_norm_update_stats(features, unused[0], unused[1], 0.0))


def _remembered(layer: _BatchNorm) -> Tensor:
    assert layer.running_mean is not None  # noqa: S101 - __init__ keeps only such layers
    assert layer.running_var is not None  # noqa: S101 - as above, both or neither
    return torch.stack([layer.running_mean, layer.running_var])  # 2 x (C,) -> (2, C)
