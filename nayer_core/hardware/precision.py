"""The number format that the networks compute in, and the loss scaling that float16 needs."""

from dataclasses import dataclass

import torch

from nayer_core.contract.config import Precision


@dataclass(frozen=True)
class Arithmetic:
    """Autocast to one format on one device; losses and statistics stay in float32.

    Args:
        device: where the networks run.
        dtype: float32, bfloat16 or float16.
    """

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """Run the block's convolutions and matrix products in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler for float16; for the other formats it changes nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def name(self) -> str:
        """The format as the configuration spells it."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]


def compute_repeatably() -> None:
    """Make CUDA's convolutions deterministic: a resumed run is bitwise equal to the uninterrupted one.

    By default cuDNN may choose algorithms for float32 gradients whose order of summation varies. Avoiding
    them cost nothing where it was measured (benchmarks/results/speed.md).
    """
    torch.backends.cudnn.deterministic = True


def choose_arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """Resolve `auto` to bf16 where the device computes in it, else to fp32.

    The processor's capabilities decide, not a measurement: a run must not depend on the load of the machine
    when it started.
    """
    if precision == "auto":
        precision = "bf16" if _computes_bf16(device) else "fp32"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Arithmetic(device, dtypes[precision])


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
