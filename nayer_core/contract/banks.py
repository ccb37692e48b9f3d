"""Which runs may share a warm-up: those whose warm-up would be the same one."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from nayer_core.contract.methods import DEFAULT_METHOD

# Fields of `DistillConfig` that nothing before the first student step depends on. Whatever is not
# named here tells warm-ups apart, a field that is added later too.
AFTER_WARMUP = frozenset(
    {
        "epochs",
        "rounds_per_epoch",
        "student_steps",
        "adv_weight",
        "cutmix",
        "student_batch_size",
        "student_lr",
        "student_lr_min",
        "student_lr_schedule",
        "student_weight_decay",
        "student_averaging",
        "temperature",
        "attention_weight",
    }
)


def bank_key(resolved: Mapping[str, Any], *, teacher_sha256: str, embeddings_sha256: str) -> str:
    """Digest everything but the seed that a warm-up is a function of.

    The student is not in it, and the seed is not: a bank made with another seed is as good a start.

    Args:
        resolved: the `ResolvedSpec` document.
        teacher_sha256: of the canonical teacher.safetensors.
        embeddings_sha256: of the canonical lte.safetensors, the label codes.
    """
    document = {
        "method": resolved.get("method", DEFAULT_METHOD),  # jobs of older releases do not say
        "teacher": [resolved["teacher_architecture"], teacher_sha256],
        "codes": [embeddings_sha256, resolved["text_encoder"]["whiten"]],
        "images": [resolved["input_size"], resolved["normalization"]],
        "synthesis": {name: value for name, value in resolved["config"].items() if name not in AFTER_WARMUP},
        "core": importlib.metadata.version("nayer"),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
