"""One run in several processes, each with a share of every batch (`distill --processes N`, or torchrun).

What is computed is what one process would compute: every process draws the same random numbers for
the whole batch and takes its rows; gradients are added up; the statistics of a batch, in BatchNorm
layers that learn and in L_BN, are those of the whole batch. So all processes hold the same networks
and the same bank at any moment, and only the first needs to write anything.

`Alone` is the one process that most runs are; it changes nothing.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.hardware.launch import MEETING_FILE


class Alone:
    """A run in one process."""

    is_first = True
    size = 1

    def share(self, whole: Tensor) -> Tensor:
        """Take this process's rows of a whole batch."""
        return whole

    def spread(self, rows: Tensor, batch_size: int) -> Tensor:  # noqa: ARG002 - one signature for both
        """Put rows at their place in a batch of `batch_size`, zeros elsewhere; gradients pass."""
        return rows

    def weigh(self, loss: Tensor, batch_size: int) -> Tensor:  # noqa: ARG002 - as above
        """Turn a mean over this process's rows into its part of the mean over the batch."""
        return loss

    def totals(self, terms: Mapping[str, Tensor], batch_size: int) -> dict[str, Tensor]:  # noqa: ARG002 - as above
        """Turn means over this process's rows into means over the batch, without gradients."""
        return {name: term.detach() for name, term in terms.items()}

    def statistics(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Turn (2, C) means and biased variances of shares into those of the batch; gradients pass."""
        return list(parts)

    def gather(self, rows: Tensor, batch_size: int) -> Tensor:  # noqa: ARG002 - as above
        """Put the rows of all processes together."""
        return rows

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes up, in place."""

    @contextmanager
    def whole_batch_norm(self) -> Iterator[None]:
        """Let BatchNorm layers that learn take the statistics of the whole batch."""
        yield

    def any(self, wish: bool) -> bool:
        """Whether some process wishes it; all get the same answer."""
        return wish


ALONE = Alone()


class Group(Alone):
    """One of several processes; `torch.distributed` is up. Every process must make the same calls."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.is_first = self.rank == 0
        self.in_hand = 1 / self.size  # of the batch that was shared last: rows here over rows in all

    def share(self, whole: Tensor) -> Tensor:
        """Take this process's rows of a whole batch."""
        rows = self._rows(len(whole))
        self.in_hand = (rows.stop - rows.start) / len(whole)
        return whole[rows]

    def spread(self, rows: Tensor, batch_size: int) -> Tensor:
        """Put rows at their place in a batch of `batch_size`, zeros elsewhere; gradients pass."""
        place = self._rows(batch_size)
        others = (0, 0) * (rows.dim() - 1)
        return nn.functional.pad(rows, (*others, place.start, batch_size - place.stop))

    def weigh(self, loss: Tensor, batch_size: int) -> Tensor:
        """Turn a mean over this process's rows into its part of the mean over the batch."""
        rows = self._rows(batch_size)
        part: Tensor = loss * ((rows.stop - rows.start) / batch_size)
        return part

    def totals(self, terms: Mapping[str, Tensor], batch_size: int) -> dict[str, Tensor]:
        """Turn means over this process's rows into means over the batch, without gradients."""
        values = torch.stack([self.weigh(term.detach().float(), batch_size) for term in terms.values()])
        dist.all_reduce(values)
        return dict(zip(terms, values, strict=True))

    def statistics(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Turn (2, C) means and biased variances of shares into those of the batch; gradients pass."""
        if not parts:
            return []
        mean, variance = torch.cat(list(parts), dim=1)
        whole_mean = _add_up(self.in_hand * mean)
        whole_variance = _add_up(self.in_hand * (variance + (mean - whole_mean).square()))
        whole = torch.stack([whole_mean, whole_variance])
        return list(whole.split([part.shape[1] for part in parts], dim=1))

    def gather(self, rows: Tensor, batch_size: int) -> Tensor:
        """Put the rows of all processes together."""
        whole = rows.new_zeros((batch_size, *rows.shape[1:]))
        whole[self._rows(batch_size)] = rows
        dist.all_reduce(whole)
        return whole

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes up, in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, total in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(total.view(gradient.shape))

    @contextmanager
    def whole_batch_norm(self) -> Iterator[None]:
        """Let BatchNorm layers that learn take the statistics of the whole batch."""
        with _WholeBatchNorm(self):
            yield

    def any(self, wish: bool) -> bool:
        """Whether some process wishes it; all get the same answer."""
        wishes = torch.tensor(int(wish))  # on the CPU: waits for the processes, not for the device
        dist.all_reduce(wishes)
        return bool(wishes)

    def _rows(self, batch_size: int) -> slice:
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)


@contextmanager
def joined(device: torch.device) -> Iterator[Alone]:
    """Join the processes that `launch` or torchrun has started, while the block lasts; else stay alone.

    Args:
        device: where the networks run, which says how tensors travel.

    Raises:
        SpecError: `invalid_command`: more processes on this machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Alone()
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
        yield Group()
    finally:
        dist.destroy_process_group()


def folders_apart(out: Path, resume: Path | None, elsewhere: Path) -> dict[str, Path]:
    """Say where a process that is not the first works, with the same states to go back to as the first.

    The first saves only after a step that all have taken, so none of its files changes while it is copied.

    Args:
        out: the first one's folder.
        resume: what the run goes on from; the first goes on saving there, where that lies in `out`.
        elsewhere: a folder to be made.

    Returns:
        What to put in the place of `out` and, where it has to be another, of `resume`.
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
    """Takes `batch_norm` in training over, whichever layer asks for it."""

    def __init__(self, group: Group):
        self._group = group

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is not nn.functional.batch_norm:
            return func(*args, **named)
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        asked: dict[str, Any] = {
            "training": False,
            "momentum": 0.1,
            "eps": 1e-5,
            "weight": None,
            "bias": None,
        }
        asked |= dict(zip(names, args, strict=False)) | named
        if not asked["training"]:
            return func(*args, **named)
        return self._normalised(**asked)

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
        ((mean, variance),) = self._group.statistics([torch.stack([mean, variance])])
        if running_mean is not None and running_var is not None:
            count = input.numel() / input.shape[1] / self._group.in_hand
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(variance * (count / (count - 1)), momentum)
        shape = (1, -1) + (1,) * (input.dim() - 2)
        slope = torch.rsqrt(variance + eps) * (1.0 if weight is None else weight)
        offset = (0.0 if bias is None else bias) - mean * slope
        normalised: Tensor = features * slope.view(shape) + offset.view(shape)
        return normalised.to(input.dtype)


class _AddUp(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all processes' gradients."""

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


def _add_up(part: Tensor) -> Tensor:
    total: Tensor = _AddUp.apply(part)
    return total
