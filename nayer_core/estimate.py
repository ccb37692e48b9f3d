"""What a run will cost, before it is started."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_core.conditioning import build_noisy_layer, noisy_layer_output
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.frozen_batch_norm import frozen_batch_norms
from nayer_core.generator import build_generator
from nayer_core.memory_bank import images_a_round, images_made
from nayer_core.networks.registry import build_on_meta, count_macs, macs_per_image

_BACKWARD = 2  # a backward pass takes twice the multiplications of a forward pass
_FLOAT_BYTES = 4
_LABEL_BYTES = 8
# Copies of what has a batch's size, in a step: images on their way, and logits in the losses.
_IMAGE_COPIES, _LOGITS_COPIES = 8, 8
_CODE_COPIES = 4
# Of the largest tensor of a network: what a layer reads, writes and needs besides, either way.
_LAYER_COPIES = 3
# Of the codes while they are prepared: whitening decomposes them in float64.
_WHITENING_COPIES, _CHECKING_COPIES = 12, 5

# What to change, by the part of the memory that is largest.
_HINTS = {
    "networks": "Choose a smaller student, or lower config.generator_width.",
    "noisy_layer": "Lower config.noise_dim or config.synthesis_batch_size, or take shorter embeddings.",
    "label_codes": "Take shorter embeddings, or another text_encoder.name.",
    "memory_bank": "Lower config.bank_capacity.",
    "synthesis_step": "Lower config.synthesis_batch_size.",
    "student_step": "Lower config.student_batch_size.",
}


@dataclass(frozen=True)
class Estimate:
    """What a run on one device costs.

    Args:
        macs: multiply-accumulates of all generator and student steps.
        memory: bytes by part, in float32: "networks" with gradients and optimisers, "noisy_layer"
            likewise, "label_codes", "memory_bank", and of either kind of step what its batch needs, of
            which one counts at a time. Measured runs on a CPU took 0.5 to 1.2 times the peak.
    """

    macs: int
    memory: Mapping[str, int]

    @property
    def memory_bytes(self) -> int:
        """The peak: what lasts, and the larger of the two kinds of step."""
        lasting = sum(size for part, size in self.memory.items() if not part.endswith("_step"))
        return lasting + max(self.memory["synthesis_step"], self.memory["student_step"])

    def document(self) -> dict[str, object]:
        """What the report of an inspection holds of it."""
        return {"macs": self.macs, "memory_bytes": self.memory_bytes, "memory": dict(self.memory)}

    def require_memory(self, most_bytes: int) -> None:
        """Refuse a run that would need more than `most_bytes`.

        Raises:
            SpecError: `run_too_large`.
        """
        if self.memory_bytes <= most_bytes:
            return
        largest = max(self.memory, key=lambda part: self.memory[part])
        share = f"{_gigabytes(self.memory[largest])} of it for the {largest.replace('_', ' ')}"
        raise SpecError(
            ErrorCode.RUN_TOO_LARGE,
            f"The run would need about {_gigabytes(self.memory_bytes)} of memory, {share}; "
            f"a run may have {_gigabytes(most_bytes)} here.",
            _HINTS[largest],
        )


def estimate(spec: ResolvedSpec, embedding_dim: int) -> Estimate:
    """Count the multiplications of a whole run, and the memory it takes at its peak.

    Args:
        spec: the run.
        embedding_dim: size of a label-text embedding.

    Raises:
        SpecError: `input_size_unsupported`.
    """
    config, classes = spec.config, spec.num_classes
    of_networks = [  # first of all, for it refuses images of a size that a network cannot take
        macs_per_image(name, num_classes=classes, input_size=spec.input_size)
        for name in (spec.teacher_architecture, spec.student_architecture)
    ]
    code_dim = classes if config.generator_input == "one_hot" else embedding_dim
    teacher, student = (
        build_on_meta(name, num_classes=classes, input_size=spec.input_size)
        for name in (spec.teacher_architecture, spec.student_architecture)
    )
    shape = torch.Size((classes, code_dim))
    with torch.device("meta"):
        noisy_layer = build_noisy_layer(shape, config)
        noise_dim = noisy_layer_output(shape, config)
        generator = build_generator(config.generator, noise_dim, config.generator_width, spec.input_size)
    memory = {
        # Generator and noisy layer with gradients, two moments of Adam and one copy on the way; the student
        # with gradients, momentum, its average and what a checkpoint copies.
        "networks": _FLOAT_BYTES * (_numbers(teacher) + 5 * _numbers(generator) + 6 * _numbers(student)),
        "noisy_layer": 5 * _FLOAT_BYTES * _numbers(noisy_layer),
        "label_codes": _codes_bytes(classes * embedding_dim, spec) + _FLOAT_BYTES * classes * code_dim,
        "memory_bank": _bank_bytes(spec),
        **_step_bytes(
            spec,
            code_dim + noise_dim,
            teacher=_Footprint.of_frozen(teacher, _empty(*spec.input_size), is_watched=True),
            adversary=_Footprint.of_frozen(student, _empty(*spec.input_size), is_watched=False),
            student=_Footprint.of_pass(student.requires_grad_(True).train(), _empty(*spec.input_size)),
            generator=_Footprint.of_pass(generator.train(), _empty(noise_dim)),
        ),
    }
    making = count_macs(generator.eval(), _empty(noise_dim)[:1])
    return Estimate(_macs(config, making, noisy_layer, *of_networks), memory)


@dataclass(frozen=True)
class _Footprint:
    """Bytes an image of what autograd keeps of a forward pass, and of the largest tensor among it."""

    kept: int
    largest: int

    @classmethod
    def of_frozen(cls, network: nn.Module, inputs: Tensor, *, is_watched: bool) -> "_Footprint":
        """Count for a fixed network; one that is watched also keeps the inputs of its BatchNorm layers."""
        network.eval().requires_grad_(False)
        with contextlib.nullcontext() if is_watched else frozen_batch_norms(network):
            return cls.of_pass(network, inputs)

    @classmethod
    def of_pass(cls, network: nn.Module, inputs: Tensor) -> "_Footprint":
        """Count on the meta device, where nothing is computed."""
        own = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}
        kept: dict[int, Tensor] = {}  # by address: as long as a tensor lives, nothing else is there

        def note(tensor: Tensor) -> Tensor:
            address = tensor.untyped_storage()._cdata
            if address not in own:
                kept[address] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(inputs.requires_grad_() * 1)  # some networks write over what they are given
        sizes = [tensor.untyped_storage().nbytes() // len(inputs) for tensor in kept.values()]
        return cls(sum(sizes), max(sizes, default=0))


def _step_bytes(
    spec: ResolvedSpec,
    code_numbers: int,
    *,
    teacher: _Footprint,
    adversary: _Footprint,
    student: _Footprint,
    generator: _Footprint,
) -> dict[str, int]:
    config = spec.config
    pixels = math.prod(spec.input_size)
    shared = _FLOAT_BYTES * (_IMAGE_COPIES * pixels + _LOGITS_COPIES * spec.num_classes)
    kept_steps = images_a_round(config) // config.synthesis_batch_size
    kept_images = (_FLOAT_BYTES + 1) * pixels * kept_steps  # as they were made, and as bytes
    layer = _LAYER_COPIES * max(teacher.largest, student.largest)
    making = generator.kept + _LAYER_COPIES * generator.largest + _CODE_COPIES * _FLOAT_BYTES * code_numbers
    synthesis = making + teacher.kept + adversary.kept + layer + kept_images + shared
    return {
        "synthesis_step": config.synthesis_batch_size * synthesis,
        "student_step": config.student_batch_size * (student.kept + layer + shared),
    }


def _codes_bytes(numbers: int, spec: ResolvedSpec) -> int:
    copies = _WHITENING_COPIES if spec.text_encoder.whiten else _CHECKING_COPIES
    return _FLOAT_BYTES * copies * numbers


def _bank_bytes(spec: ResolvedSpec) -> int:
    config = spec.config
    images = min(max(config.bank_capacity, images_a_round(config)), images_made(config))
    return images * (math.prod(spec.input_size) + _LABEL_BYTES)


def _macs(config: DistillConfig, generator: int, noisy_layer: nn.Module, teacher: int, student: int) -> int:
    # (sweeps, size of a code, size of the noise): an image passes the Linear of its sweep.
    linears = [weight for weight in noisy_layer.parameters() if weight.dim() == 3]
    making = generator + sum(weight.shape[1] * weight.shape[2] for weight in linears)
    both_ways = 1 + _BACKWARD
    steps = config.generator_steps * config.synthesis_batch_size
    warmup = steps * config.warmup_epochs * config.warmup_rounds_per_epoch
    adversarial = steps * config.epochs * config.rounds_per_epoch
    learning = config.epochs * config.student_steps * config.student_batch_size
    macs = both_ways * (warmup * (making + teacher) + adversarial * (making + teacher + student))
    return macs + learning * (teacher + both_ways * student)


def _empty(*shape: int) -> Tensor:
    """Two images, or what they are made from, without numbers: one alone has no variance for BatchNorm."""
    return torch.empty(2, *shape, device="meta")


def _numbers(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
