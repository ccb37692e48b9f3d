"""Which runs may share a warm-up: those that would compute the same one."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from nayer_core.contract.methods import DEFAULT_METHOD

# Fields of `DistillConfig` that have no effect before the first student step. All other fields, also those
# that are added later, are part of the key.
AFTER_WARMUP = frozenset(
    {
        "epochs",
        "rounds_per_epoch",
        "student_steps",
        "adv_weight",
        "adversary",
        "cutmix",
        "procedural_share",
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
    """Digest everything that a warm-up depends on, except the seed.

    A warm-up does not depend on the student. It depends on the seed, but a bank of another seed is as good.

    Args:
        resolved: the `ResolvedSpec` document.
        teacher_sha256: of the canonical teacher.safetensors.
        embeddings_sha256: of the canonical lte.safetensors, the label codes.
    """
    document = {
        "method": resolved.get("method", DEFAULT_METHOD),  # absent in jobs of older releases
        "teacher": [resolved["teacher_architecture"], teacher_sha256],
        "codes": [embeddings_sha256, resolved["text_encoder"]["whiten"]],
        "images": [resolved["input_size"], resolved["normalization"]],
        "synthesis": {name: value for name, value in resolved["config"].items() if name not in AFTER_WARMUP},
        "core": importlib.metadata.version("nayer"),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
