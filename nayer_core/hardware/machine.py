"""Where steps are computed: device, number format, peer processes, CUDA graphs and random numbers.

A method computes losses and requests updates. This module holds everything else that a step needs on a
particular machine, so that the code of a method is about the method alone.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from nayer_core.hardware.cuda_graphs import CudaGraphs
from nayer_core.hardware.depthwise import compute_depthwise_in_float32
from nayer_core.hardware.optimizers import Optimizer
from nayer_core.hardware.peers import SINGLE_PROCESS, Peers
from nayer_core.hardware.precision import Arithmetic

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Losses:
    """The losses of a batch.

    Args:
        total: scalar, the mean over the rows it was computed from; it is minimised.
        terms: scalars by name, means over the same rows; reported, not minimised.
        outputs: other tensors that the caller needs; their gradients are dropped.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()

    def clone(self) -> "Losses":
        """Copy all tensors."""
        terms = {name: term.clone() for name, term in self.terms.items()}
        return Losses(self.total.clone(), terms, tuple(output.clone() for output in self.outputs))


class Machine:
    """One handle for everything that a method needs of the machine it runs on.

    Args:
        arithmetic: device and number format.
        seed: every random number of the run follows from it.
        peers: the processes that share every batch; one by default.

    Attributes:
        rng: draws on the device; all peers draw the same numbers.
    """

    def __init__(self, arithmetic: Arithmetic, seed: int, peers: Peers = SINGLE_PROCESS):
        self.arithmetic = arithmetic
        self.device = arithmetic.device
        self.peers = peers
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.graphs = CudaGraphs(arithmetic, self.rng, peers.size)

    def unshared(self, seed: int) -> "Machine":
        """Return a machine on the same device, with other random numbers, that shares no batch with peers."""
        return Machine(self.arithmetic, seed)

    def place(self, network: Network) -> Network:
        """Move a network to the device, in the memory layout and number formats that are fast there."""
        if self.device.type == "cpu":
            compute_depthwise_in_float32(network)
        return network.to(self.device).to(memory_format=torch.channels_last)

    def update(
        self,
        optimizer: Optimizer,
        loss: Callable[..., Losses],
        *,
        whole: Sequence[Tensor],
        rows: Sequence[Tensor] = (),
        kind: Hashable,
    ) -> Losses:
        """Update an optimiser's parameters once along the gradient of a loss.

        On CUDA the kernels of `loss` and its backward pass are recorded once for each kind and replayed from
        then on. So `loss` must work on the device alone, and everything it reads besides its arguments
        (networks and their buffers) must be the same objects at every call of the kind.

        Args:
            optimizer: its parameters are updated, and their gradients are freed afterwards.
            loss: called with `whole`, followed by this process's share of `rows`; it computes the losses of
                that share. BatchNorm layers in training still use the statistics of the whole batch.
            whole: passed unchanged; the first has a row for each image of the whole batch.
            rows: each has a row for each image of the whole batch. Shapes are the same for a kind.
            kind: identifies the computation: calls of the same kind differ only in the values of tensors.

        Returns:
            The losses as means over the whole batch, without gradients. They may be kept.
        """
        scaler = optimizer.scaler(self.arithmetic.scaler)

        def gradients(*inputs: Tensor) -> Losses:
            own = [self.own_rows(tensor) for tensor in inputs[len(whole) :]]
            with self.arithmetic.autocast(), self.peers.sharing(len(inputs[0])):
                losses = loss(*inputs[: len(whole)], *own)
            scaler.scale(self.peers.scale_loss(losses.total)).backward()
            means = self.peers.mean_over_batch({"total": losses.total, **losses.terms})
            outputs = tuple(output.detach() for output in losses.outputs)
            return Losses(means.pop("total"), means, outputs)

        losses = self.graphs.run(kind, gradients, (*whole, *rows), optimizer.parameters)
        self.peers.sum_gradients(optimizer.parameters)
        scaler.step(optimizer)  # type: ignore[arg-type] # it has what the scaler needs
        scaler.update()
        optimizer.zero_grad()
        return losses

    def own_rows(self, whole: Tensor) -> Tensor:
        """Return this process's share of a tensor with a row for each image of the batch."""
        return whole[self.peers.rows(len(whole))]

    def all_rows(self, own: Tensor, batch_size: int) -> Tensor:
        """Gather the rows of all processes: the inverse of `own_rows`."""
        return self.peers.gather_rows(own, batch_size)

    def batch_statistics(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Turn statistics of this process's rows into those of the whole batch.

        Args:
            parts: (2, C) float32 each: means and biased variances by channel.

        Returns:
            The same shapes, with gradients to the rows of this process.
        """
        return self.peers.batch_statistics(parts)
