"""One run in several processes; each has a share of every batch (`distill --processes N`, or torchrun).

The result is the same as that of one process. Every process draws the same random numbers for the whole
batch and computes its own rows; gradients are summed. BatchNorm layers in training, and L_BN, use the
statistics of the whole batch. So all processes hold the same networks and the same bank at any moment, and
only the first writes files.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.hardware.launch import MEETING_FILE


class Peers(Protocol):
    """The processes that share every batch. All must make the same calls in the same order."""

    size: int
    is_first: bool

    def rows(self, batch_size: int) -> slice:
        """Return the rows of a whole batch that belong to this process."""

    def sharing(self, batch_size: int) -> AbstractContextManager[None]:
        """In this block, BatchNorm layers in training use the statistics of the whole batch."""

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Turn a mean over this process's rows into its part of the mean over the batch."""

    def mean_over_batch(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn means over this process's rows into means over the batch, without gradients."""

    def batch_statistics(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Turn (2, C) means and biased variances of own rows into the batch's, with gradients."""

    def gather_rows(self, own: Tensor, batch_size: int) -> Tensor:
        """Concatenate the rows of all processes."""

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes, in place."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer."""


class SingleProcess:
    """A run in one process."""

    size = 1
    is_first = True

    def rows(self, batch_size: int) -> slice:
        """Return all rows of a batch."""
        return slice(0, batch_size)

    def sharing(self, batch_size: int) -> AbstractContextManager[None]:  # noqa: ARG002 - of the protocol
        """Do nothing: the rows of this process are the whole batch."""
        return nullcontext()

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss: it is the mean over the batch."""
        return loss

    def mean_over_batch(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same means, without gradients."""
        return {name: mean.detach() for name, mean in means.items()}

    def batch_statistics(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the same statistics."""
        return list(parts)

    def gather_rows(self, own: Tensor, batch_size: int) -> Tensor:  # noqa: ARG002 - of the protocol
        """Return the same rows."""
        return own

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Leave the gradients as they are."""

    def any(self, flag: bool) -> bool:
        """Return the flag."""
        return flag


SINGLE_PROCESS = SingleProcess()


class ProcessGroup:
    """One of several processes; `torch.distributed` is initialised."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.is_first = self.rank == 0
        self.share = 1 / self.size  # own rows / all rows of the present batch

    def rows(self, batch_size: int) -> slice:
        """Return the rows of a whole batch that belong to this process."""
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)

    @contextmanager
    def sharing(self, batch_size: int) -> Iterator[None]:
        """In this block, BatchNorm layers in training use the statistics of the whole batch."""
        own = self.rows(batch_size)
        self.share = (own.stop - own.start) / batch_size
        with _WholeBatchNorm(self, batch_size):
            yield

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Turn a mean over this process's rows into its part of the mean over the batch."""
        return loss * self.share

    def mean_over_batch(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn means over this process's rows into means over the batch, without gradients."""
        values = torch.stack([self.scale_loss(mean.detach().float()) for mean in means.values()])
        dist.all_reduce(values)
        return dict(zip(means, values, strict=True))

    def batch_statistics(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Turn (2, C) means and biased variances of own rows into the batch's, with gradients."""
        if not parts:
            return []
        mean, variance = torch.cat(list(parts), dim=1)  # (C of all parts,) each
        whole_mean = _sum(self.share * mean)
        whole_variance = _sum(self.share * (variance + (mean - whole_mean).square()))
        whole = torch.stack([whole_mean, whole_variance])  # (2, C of all parts)
        return list(whole.split([part.shape[1] for part in parts], dim=1))

    def gather_rows(self, own: Tensor, batch_size: int) -> Tensor:
        """Concatenate the rows of all processes."""
        whole = own.new_zeros((batch_size, *own.shape[1:]))
        whole[self.rows(batch_size)] = own
        dist.all_reduce(whole)
        return whole

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes, in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, total in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(total.view(gradient.shape))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer."""
        flags = torch.tensor(int(flag))  # on the CPU: it does not wait for the device
        dist.all_reduce(flags)
        return bool(flags)


@contextmanager
def joined(device: torch.device) -> Iterator[Peers]:
    """Join the processes that `launch` or torchrun has started, during the block; else yield a single one.

    Args:
        device: where the networks run; it selects the transport, NCCL or Gloo.

    Raises:
        SpecError: `invalid_command` if this machine has more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    if device.type == "cuda":
        _require_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", size)))
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # which "cuda" means from here on
    meeting = os.environ.get(MEETING_FILE)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method="env://" if meeting is None else Path(meeting).as_uri(),
        rank=int(os.environ["RANK"]),
        world_size=size,
    )
    try:
        yield ProcessGroup()
    finally:
        dist.destroy_process_group()


def folders_apart(out: Path, resume: Path | None, elsewhere: Path) -> dict[str, Path]:
    """Choose the folders of a process other than the first; it gets a copy of the checkpoints to resume.

    The first saves only after a step that all have done, so none of its files changes during the copy.

    Args:
        out: the folder of the first process.
        resume: the checkpoint that the run continues from; if it is inside `out`, the first saves there too.
        elsewhere: a folder to create.

    Returns:
        Replacements for `out` and, if it differs, for `resume`.
    """
    if resume is None or resume.resolve() != (out / "checkpoint").resolve():
        return {"out": elsewhere}
    return {"out": elsewhere, "resume": Path(shutil.copytree(resume, elsewhere / "checkpoint"))}


def _require_gpus(processes: int) -> None:
    if processes > (gpus := torch.cuda.device_count()):
        raise SpecError(
            ErrorCode.INVALID_COMMAND,
            f"{processes} processes need a GPU each; {gpus} can be seen.",
            "Start fewer processes, show the program more GPUs, or compute with --device cpu.",
        )


class _WholeBatchNorm(TorchFunctionMode):
    """Replaces `batch_norm` in training where features are own rows; a whole batch is left to PyTorch."""

    def __init__(self, group: ProcessGroup, batch_size: int):
        self._group = group
        self._batch_size = batch_size

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        keywords = kwargs or {}
        if func is not nn.functional.batch_norm:
            return func(*args, **keywords)
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        values: dict[str, Any] = {
            "training": False,
            "momentum": 0.1,
            "eps": 1e-5,
            "weight": None,
            "bias": None,
        }
        values |= dict(zip(names, args, strict=False)) | keywords
        if not values["training"] or len(values["input"]) == self._batch_size:
            return func(*args, **keywords)
        return self._normalised(**values)

    def _normalised(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
        training: bool,  # noqa: ARG002 - torch's, and true here
    ) -> Tensor:
        features = input.float()
        others = [dim for dim in range(input.dim()) if dim != 1]
        variance, mean = torch.var_mean(features, dim=others, correction=0)
        ((mean, variance),) = self._group.batch_statistics([torch.stack([mean, variance])])
        if running_mean is not None and running_var is not None:
            count = input.numel() / input.shape[1] / self._group.share
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(variance * (count / (count - 1)), momentum)
        shape = (1, -1) + (1,) * (input.dim() - 2)
        slope = torch.rsqrt(variance + eps) * (1.0 if weight is None else weight)
        offset = (0.0 if bias is None else bias) - mean * slope
        normalised: Tensor = features * slope.view(shape) + offset.view(shape)
        return normalised.to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - as above
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum(part: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(part)
    return total
