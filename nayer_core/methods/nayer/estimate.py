"""The cost of a run of NAYER, estimated before it starts."""

import math
from typing import cast

import torch
from torch import nn

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.methods.nayer.ablations import build_noisy_layer, generator_input_dim
from nayer_core.methods.nayer.plan import plan_run
from nayer_core.methods.parts.generator import build_generator
from nayer_core.methods.parts.image_priors import PROCEDURAL_IMAGES, weight_of
from nayer_core.methods.parts.student_training import POOL_SIZE
from nayer_core.networks.registry import build_on_meta, count_macs, macs_per_image
from nayer_core.running.estimate import FLOAT_BYTES, Estimate, Footprint, count_numbers, meta_batch
from nayer_core.running.method import Plan

_BACKWARD = 2  # a backward pass takes twice the multiplications of a forward pass
_LABEL_BYTES = 8
# Copies of images and of logits that a step holds, each of a batch's size.
_IMAGE_COPIES, _LOGITS_COPIES = 8, 8
_CODE_COPIES = 4
# Copies of a network's largest tensor: a layer's input, its output and its workspace, forward or backward.
_LAYER_COPIES = 3
# Copies of the codes while they are prepared: whitening decomposes them in float64.
_WHITENING_COPIES, _CHECKING_COPIES = 12, 5


def estimate_run(spec: ResolvedSpec, embedding_dim: int) -> Estimate:
    """Count the multiplications of a whole run, and the memory it takes at its peak.

    Args:
        spec: the run.
        embedding_dim: size of a label embedding.

    Returns:
        Memory in the parts "networks" with gradients and optimisers, "noisy_layer" likewise, "label_codes",
        "memory_bank", "synthesis_step" and "student_step".

    Raises:
        SpecError: `input_size_unsupported`.
    """
    config, classes = cast(DistillConfig, spec.config), spec.num_classes
    architectures = (spec.teacher_architecture, spec.student_architecture)
    teacher_macs, student_macs = (  # first: it refuses an image size that a network cannot take
        macs_per_image(name, num_classes=classes, input_size=spec.input_size) for name in architectures
    )
    teacher, student = (
        build_on_meta(name, num_classes=classes, input_size=spec.input_size) for name in architectures
    )
    code_dim = classes if config.generator_input == "one_hot" else embedding_dim
    codes_shape = torch.Size((classes, code_dim))
    with torch.device("meta"):
        noisy_layer = build_noisy_layer(codes_shape, config)
        input_dim = generator_input_dim(codes_shape, config)
        generator = build_generator(config.generator, input_dim, config.generator_width, spec.input_size)
    plan = plan_run(config)
    images, numbers = meta_batch(*spec.input_size), code_dim + input_dim
    memory = {
        # Generator and noisy layer: with gradients, two moments of Adam and one temporary copy. Student: with
        # gradients, momentum, its average and a checkpoint's copies.
        "networks": FLOAT_BYTES
        * (count_numbers(teacher) + 5 * count_numbers(generator) + 6 * count_numbers(student)),
        "noisy_layer": 5 * FLOAT_BYTES * count_numbers(noisy_layer),
        "label_codes": _codes_bytes(classes * embedding_dim, spec) + FLOAT_BYTES * classes * code_dim,
        "memory_bank": _bank_bytes(plan, teacher, spec),
        **_step_bytes(
            spec,
            plan,
            _CODE_COPIES * FLOAT_BYTES * numbers,
            teacher=Footprint.of_frozen(teacher, images, is_watched=True),
            adversary=Footprint.of_frozen(student, meta_batch(*spec.input_size), is_watched=False),
            student=Footprint.of_pass(student.requires_grad_(True).train(), meta_batch(*spec.input_size)),
            generator=Footprint.of_pass(generator.train(), meta_batch(input_dim)),
        ),
    }
    generator_macs = count_macs(generator.eval(), meta_batch(input_dim)[:1]) + _linear_macs(noisy_layer)
    return Estimate(_macs(plan, generator_macs, teacher_macs, student_macs), memory)


def _step_bytes(
    spec: ResolvedSpec,
    plan: Plan,
    codes_bytes: int,
    *,
    teacher: Footprint,
    adversary: Footprint,
    student: Footprint,
    generator: Footprint,
) -> dict[str, int]:
    """Bytes that a step of either kind needs for its batch."""
    pixels = math.prod(spec.input_size)
    synthesis_batch, student_batch = plan.steps["adversarial"].images, plan.steps["student"].images
    chosen_steps = plan.images_per_round // synthesis_batch
    chosen_images = (FLOAT_BYTES + 1) * pixels * chosen_steps  # as floats, and as bytes
    shared = FLOAT_BYTES * (_IMAGE_COPIES * pixels + _LOGITS_COPIES * spec.num_classes)
    layer = _LAYER_COPIES * max(teacher.largest, student.largest)
    making = generator.total + _LAYER_COPIES * generator.largest + codes_bytes
    synthesis = making + teacher.total + adversary.total + layer + chosen_images + shared
    return {
        "synthesis_step": synthesis_batch * synthesis,
        "student_step": student_batch * (student.total + layer + shared),
    }


def _bank_bytes(plan: Plan, teacher: nn.Module, spec: ResolvedSpec) -> int:
    """Bytes of the memory bank, and of the procedural images, which only some teachers have."""
    pixels, capacity = math.prod(spec.input_size), plan.bank_capacity(spec.config.bank_capacity)
    procedural = POOL_SIZE if weight_of(PROCEDURAL_IMAGES, teacher, spec.config) else 0
    return capacity * (pixels + _LABEL_BYTES) + procedural * pixels


def _codes_bytes(numbers: int, spec: ResolvedSpec) -> int:
    copies = _WHITENING_COPIES if spec.text_encoder.whiten else _CHECKING_COPIES
    return FLOAT_BYTES * copies * numbers


def _macs(plan: Plan, generator: int, teacher: int, student: int) -> int:
    both_ways = 1 + _BACKWARD
    macs_per_image = {
        "warmup": both_ways * (generator + teacher),
        "adversarial": both_ways * (generator + teacher + student),
        "student": teacher + both_ways * student,
    }
    return sum(step.count * step.images * macs_per_image[kind] for kind, step in plan.steps.items())


def _linear_macs(noisy_layer: nn.Module) -> int:
    """Multiply-accumulates of the noisy layer for one image: it passes the Linear of its sweep."""
    # (num_sweeps, code_dim, noise_dim) each
    linears = [weight for weight in noisy_layer.parameters() if weight.dim() == 3]
    return sum(weight.shape[1] * weight.shape[2] for weight in linears)
