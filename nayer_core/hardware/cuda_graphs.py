"""CUDA graphs: the thousands of kernels of a step, launched as one.

Networks for small images keep a GPU busy for a fraction of the time that Python takes to launch their
kernels one by one. A step over tensors that stay where they are can be recorded once and then be
replayed: the same kernels on the same memory, so the same numbers.
"""

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from nayer_core.hardware.precision import Arithmetic
from nayer_core.hardware.processes import Alone

Result = TypeVar("Result")

UNRECORDED_RUNS = 2  # libraries choose their algorithms in the first, and set up what they keep


class Recorder:
    """Does steps of one kind or several; on CUDA it records each kind and replays it from then on.

    float16 and runs of several processes are not recorded: what the loss is scaled by, and what
    processes tell each other, would be part of the recording.

    Args:
        arithmetic: device and number format of the steps.
        rng: source of their random numbers; a replay draws what the step itself would have drawn.
        processes: who shares the batches.
    """

    def __init__(self, arithmetic: Arithmetic, rng: torch.Generator, processes: Alone):
        self.records = (
            arithmetic.device.type == "cuda" and arithmetic.dtype != torch.float16 and processes.size == 1
        )
        self._rng = rng
        self._runs: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording[Any]] = {}

    def run(
        self,
        kind: Hashable,
        step: Callable[..., Result],
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
    ) -> Result:
        """Do `step(*inputs)`, whose backward pass leaves gradients with `parameters`.

        Args:
            kind: names the step: all that makes it another one, but for the values in tensors. Tensors
                it reads besides `inputs` must be the same objects from one time to the next.
            step: works on the device alone and never waits for it; gradients are None before it.
            inputs: of the same shapes every time.
            parameters: whose gradients are wanted.

        Returns:
            What the step returns. The next step of the kind writes over the tensors in it.
        """
        if not self.records:
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
        """Drop all recordings, with their memory: shapes have changed, or other tensors are read."""
        self._runs.clear()
        self._recordings.clear()

    def _record(
        self, step: Callable[..., Result], inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
    ) -> "_Recording[Result]":
        """Note the step's kernels down; none of them runs. Recordings share their memory."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._rng)
        own = [given.clone() for given in inputs]
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
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let no recording that Python finds unused be freed now: that would break off the one being made."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
