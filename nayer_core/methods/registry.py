"""Builds methods by name."""

import importlib
from typing import Any, Protocol, cast

from nayer_core.contract.config import MethodConfig
from nayer_core.contract.methods import METHODS
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.hardware.machine import Machine
from nayer_core.running.estimate import Estimate
from nayer_core.running.method import Distillands, Method
from nayer_core.tasks.task import Task


class MethodClass(Protocol):
    """The class that an entry of `METHODS` names."""

    def __call__(self, distillands: Distillands, config: Any, task: Task, machine: Machine) -> Method: ...  # noqa: D102 - a constructor

    def estimate(self, spec: ResolvedSpec, embedding_dim: int) -> Estimate: ...  # noqa: D102 - of `Method`


def method_class(name: str) -> MethodClass:
    """Import the class of a method.

    Args:
        name: a key of `METHODS`.
    """
    module, _, attribute = METHODS[name].implementation.partition(":")
    return cast(MethodClass, getattr(importlib.import_module(module), attribute))


def build_method(
    name: str, distillands: Distillands, config: MethodConfig, task: Task, machine: Machine
) -> Method:
    """Build a method at the beginning of a run.

    Args:
        name: a key of `METHODS`.
        distillands: teacher, student, label embeddings, image size, augmentation.
        config: of the class that the method's entry names.
        task: what the networks' outputs mean.
        machine: where the steps are computed.
    """
    return method_class(name)(distillands, config, task, machine)
