"""What a run of NAYER will cost, before it is started."""

from typing import cast

import torch
from torch import nn

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.methods.nayer.plan import plan_run
from nayer_core.methods.parts.generator import build_generator
from nayer_core.networks.registry import build_on_meta, count_macs
from nayer_core.networks.registry import macs_per_image as network_macs

_BACKWARD = 2  # a backward pass takes twice the multiplications of a forward pass
_FLOAT_BYTES = 4


def estimate_run(spec: ResolvedSpec) -> dict[str, int]:
    """Count the multiplications of a whole run and the memory that does not depend on batches.

    Returns:
        macs: multiply-accumulates of all generator and student steps.
        memory_bytes: weights, gradients, optimiser states and the memory bank; activations,
            which depend on the device and its arithmetic, come on top.
    """
    config = cast(DistillConfig, spec.config)
    plan = plan_run(config)
    teacher_macs, teacher = _cost(spec.teacher_architecture, spec)
    student_macs, student = _cost(spec.student_architecture, spec)
    with torch.device("meta"):
        generator = build_generator(
            config.generator, config.noise_dim, config.generator_width, spec.input_size
        ).eval()
        generator_macs = count_macs(generator, torch.empty(1, config.noise_dim))

    both_ways = 1 + _BACKWARD
    macs_per_image = {
        "warmup": both_ways * (generator_macs + teacher_macs),
        "adversarial": both_ways * (generator_macs + teacher_macs + student_macs),
        "student": teacher_macs + both_ways * student_macs,
    }
    macs = sum(step.count * step.images * macs_per_image[kind] for kind, step in plan.steps.items())

    channels, height, width = spec.input_size
    bank_bytes = plan.bank_capacity(config.bank_capacity) * channels * height * width
    # Student: weights, gradients, momentum. Generator: weights, gradients, two moments of Adam.
    weights_bytes = _FLOAT_BYTES * (teacher + 3 * student + 4 * _numbers(generator))
    return {"macs": macs, "memory_bytes": bank_bytes + weights_bytes}


def _cost(architecture: str, spec: ResolvedSpec) -> tuple[int, int]:
    """Multiply-accumulates an image, and numbers in the weights."""
    classes, size = spec.num_classes, spec.input_size
    network = build_on_meta(architecture, num_classes=classes, input_size=size)
    return network_macs(architecture, num_classes=classes, input_size=size), _numbers(network)


def _numbers(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())
