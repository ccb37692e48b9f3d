"""The cost of a run, estimated before it starts: multiplications, and memory by part."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.hardware.frozen_batch_norm import frozen_batch_norms

FLOAT_BYTES = 4

# Advice, by the part that takes the most memory.
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
    """The cost of a run on one device.

    Args:
        macs: multiply-accumulates of all steps.
        memory: bytes by part, in float32. Parts whose names end in "_step" are needed for the batch of one
            step, so only one of them exists at a time; all others last for the whole run. Measured runs on
            a CPU took 0.5 to 1.2 times the peak.
    """

    macs: int
    memory: Mapping[str, int]

    @property
    def memory_bytes(self) -> int:
        """The peak: all lasting parts and the largest step."""
        lasting = sum(size for part, size in self.memory.items() if not part.endswith("_step"))
        return lasting + max(size for part, size in self.memory.items() if part.endswith("_step"))

    def document(self) -> dict[str, object]:
        """Return the estimate for the report of an inspection."""
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


@dataclass(frozen=True)
class Footprint:
    """Bytes per image that autograd holds after a forward pass.

    Args:
        total: all of them.
        largest: the largest tensor among them.
    """

    total: int
    largest: int

    @classmethod
    def of_frozen(cls, network: nn.Module, inputs: Tensor, *, is_watched: bool) -> Self:
        """Count for a fixed network; if it is watched, inputs of its BatchNorm layers are saved too."""
        network.eval().requires_grad_(False)
        with contextlib.nullcontext() if is_watched else frozen_batch_norms(network):
            return cls.of_pass(network, inputs)

    @classmethod
    def of_pass(cls, network: nn.Module, inputs: Tensor) -> Self:
        """Count on the meta device, where nothing is computed."""
        own = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}
        tensors: dict[int, Tensor] = {}  # by address, which is unique while the tensor exists

        def note(tensor: Tensor) -> Tensor:
            address = tensor.untyped_storage()._cdata
            if address not in own:
                tensors[address] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(inputs.requires_grad_() * 1)  # some networks write over their inputs
        sizes = [tensor.untyped_storage().nbytes() // len(inputs) for tensor in tensors.values()]
        return cls(sum(sizes), max(sizes, default=0))


def meta_batch(*shape: int) -> Tensor:
    """Return a batch of two on the meta device, without numbers: BatchNorm needs more than one image."""
    return torch.empty(2, *shape, device="meta")


def count_numbers(network: nn.Module) -> int:
    """Count the numbers in a network's weights and buffers."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
