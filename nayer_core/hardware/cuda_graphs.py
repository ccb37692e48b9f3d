"""CUDA graphs: the thousands of kernels of a step, launched with one call.

The kernels of networks for small images run in a fraction of the time that Python takes to launch them one
by one. A step whose tensors keep their addresses can be recorded once and then replayed: the same kernels on
the same memory give the same numbers.
"""

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from nayer_core.hardware.precision import Arithmetic


class _Clonable(Protocol):
    def clone(self) -> Self: ...


Result = TypeVar("Result", bound=_Clonable)

UNRECORDED_RUNS = 2  # in the first, libraries choose algorithms and allocate workspaces


class CudaGraphs:
    """Runs steps; on CUDA it records each kind of step and replays it from then on.

    float16 and runs of several processes are not recorded: the loss scale, and the messages between
    processes, would be fixed in the recording.

    Args:
        arithmetic: device and number format of the steps.
        rng: source of their random numbers; a replay draws what the step itself would have drawn.
        num_processes: how many processes share the batches.
    """

    def __init__(self, arithmetic: Arithmetic, rng: torch.Generator, num_processes: int):
        self.enabled = (
            arithmetic.device.type == "cuda" and arithmetic.dtype != torch.float16 and num_processes == 1
        )
        self._rng = rng
        self._runs: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording[Any]] = {}

    def __len__(self) -> int:
        return len(self._recordings)

    def run(
        self,
        kind: Hashable,
        step: Callable[..., Result],
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
    ) -> Result:
        """Run `step(*inputs)`, whose backward pass leaves gradients in `parameters`.

        Args:
            kind: identifies the computation. Tensors that the step reads besides `inputs` must be the same
                objects every time.
            step: works on the device alone and never waits for it; gradients are None before it.
            inputs: of the same shapes every time.
            parameters: whose gradients the step computes.

        Returns:
            What the step returns, in memory of its own.
        """
        if not self.enabled:
            return step(*inputs)
        recording = self._recordings.get(kind)
        if recording is None:
            if self._runs[kind] < UNRECORDED_RUNS:
                self._runs[kind] += 1
                return step(*inputs)
            recording = self._recordings[kind] = self._record(step, inputs, parameters)
        result: Result = recording.replay(inputs, parameters)
        return result

    def forget(self) -> None:
        """Drop all recordings and their memory; call it when shapes or the tensors read have changed."""
        self._runs.clear()
        self._recordings.clear()

    def _record(
        self, step: Callable[..., Result], inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
    ) -> "_Recording[Result]":
        """Record the step's kernels without running them. Recordings share their memory."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._rng)
        own = [tensor.clone() for tensor in inputs]
        others = [recording.graph for recording in self._recordings.values()]
        with _no_collection(), torch.cuda.graph(graph, pool=others[0].pool() if others else None):
            result = step(*own)
        return _Recording(graph, own, [parameter.grad for parameter in parameters], result)


@dataclass(frozen=True)
class _Recording(Generic[Result]):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    gradients: list[Tensor | None]
    result: Result

    def replay(self, inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Result:
        for own, tensor in zip(self.inputs, inputs, strict=True):
            own.copy_(tensor)
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result.clone()  # the next replay writes over the result


@contextmanager
def _no_collection() -> Iterator[None]:
    """Prevent garbage collection: freeing an old recording would abort the one being made."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
