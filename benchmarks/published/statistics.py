"""The term that compares BatchNorm statistics, computed on every forward pass of the teacher."""

import torch
from torch import Tensor, nn

MOMENTUM = 0.9  # share of earlier rounds in what is compared


class StatisticsHook:
    """Watches one BatchNorm permanently.

    Args:
        layer: of the teacher.
    """

    def __init__(self, layer: nn.BatchNorm2d):
        self.average: tuple[Tensor, Tensor] | None = None
        self.latest: tuple[Tensor, Tensor]
        self.distance: Tensor
        layer.register_forward_hook(self._after)

    def end_round(self) -> None:
        """Take the last forward pass into the average over rounds."""
        mean, variance = (value.detach() for value in self.latest)
        if self.average is None:
            self.average = mean, variance
        else:
            self.average = (
                MOMENTUM * self.average[0] + (1 - MOMENTUM) * mean,
                MOMENTUM * self.average[1] + (1 - MOMENTUM) * variance,
            )

    def _after(self, layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        (features,) = inputs
        mean = features.mean([0, 2, 3])
        by_channel = features.permute(1, 0, 2, 3).contiguous().view(features.shape[1], -1)
        variance = by_channel.var(1, unbiased=False)
        self.latest = mean, variance
        if self.average is not None:
            mean = (1 - MOMENTUM) * mean + MOMENTUM * self.average[0]
            variance = (1 - MOMENTUM) * variance + MOMENTUM * self.average[1]
        assert layer.running_mean is not None  # noqa: S101 - the teacher was trained with them
        assert layer.running_var is not None  # noqa: S101 - as above
        self.distance = torch.norm(layer.running_var - variance, 2) + torch.norm(layer.running_mean - mean, 2)


def watch(teacher: nn.Module) -> list[StatisticsHook]:
    """Hook every BatchNorm of `teacher`."""
    return [StatisticsHook(layer) for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
