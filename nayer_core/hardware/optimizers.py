"""SGD with momentum and Adam on torch's fused kernels, without loading torch's compiler.

The classes of torch.optim import torch._dynamo at first use: more than a second and 150 MB at each start of
a run, and a run starts again after every fault. The functional forms that those classes call do not import
it, and give the same numbers bit by bit.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd


class Optimizer:
    """The interface that `torch.amp.GradScaler` needs of an optimiser that unscales gradients itself.

    Args:
        parameters: on one device.
        lr: learning rate; may be changed between steps.
    """

    _step_supports_amp_scaling = True

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float):
        self.parameters = list(parameters)
        self.param_groups = [{"params": self.parameters}]
        self.lr = lr
        self._scaler: torch.amp.GradScaler | None = None
        self._scaler_facts: dict[str, Any] = {}

    def scaler(self, make: Callable[[], torch.amp.GradScaler]) -> torch.amp.GradScaler:
        """Return the scaler of this optimiser's losses; the first call makes it."""
        if self._scaler is None:
            self._scaler = make()
            if self._scaler_facts:
                self._scaler.load_state_dict(self._scaler_facts)
        return self._scaler

    def facts(self) -> dict[str, Any]:
        """The part of the state that is JSON values, not tensors: the scale of the losses in float16."""
        return self._scaler_facts if self._scaler is None else self._scaler.state_dict()

    def restore(self, facts: dict[str, Any]) -> None:
        """Return to a state that `facts` gave; the next scaler takes it."""
        self._scaler, self._scaler_facts = None, facts

    def zero_grad(self) -> None:
        """Drop the gradients and free their memory."""
        for parameter in self.parameters:
            parameter.grad = None

    def _moved(self) -> list[int]:
        """Indices of the parameters that have a gradient; the others do not change."""
        return [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]

    def _gradients(self, moved: list[int]) -> list[Tensor]:
        return [gradient for index in moved if (gradient := self.parameters[index].grad) is not None]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay.

    Args:
        parameters: on one device.
        lr: learning rate; may be changed between steps.
        momentum: share of the last step in the next.
        weight_decay: this multiple of a weight is added to its gradient.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, momentum: float, weight_decay: float
    ):
        super().__init__(parameters, lr)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their gradients."""
        moved = self._moved()
        momenta: list[Tensor | None] = [*_select(self.momenta, moved)]
        sgd(
            _select(self.parameters, moved),
            self._gradients(moved),
            momenta,
            fused=True,
            grad_scale=getattr(self, "grad_scale", None),  # set by the scaler while it steps
            found_inf=getattr(self, "found_inf", None),
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) without weight decay.

    Args:
        parameters: on one device.
        lr: learning rate; may be changed between steps.
        betas: decay of the running averages of gradients and of their squares.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, betas: tuple[float, float]):
        super().__init__(parameters, lr)
        self.betas = betas
        self._averages = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._square_averages = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their averaged gradients."""
        moved = self._moved()
        adam(
            _select(self.parameters, moved),
            self._gradients(moved),
            _select(self._averages, moved),
            _select(self._square_averages, moved),
            [],
            _select(self._steps, moved),
            fused=True,
            grad_scale=getattr(self, "grad_scale", None),  # set by the scaler while it steps
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _select(tensors: Sequence[Tensor], indices: list[int]) -> list[Tensor]:
    return [tensors[index] for index in indices]
