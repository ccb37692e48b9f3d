"""The model card of a student: each number says what it was measured on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nayer_core.contract.methods import METHODS
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.methods.parts.bn_regularization import is_experimental
from nayer_core.methods.parts.image_priors import image_priors
from nayer_core.networks.registry import count_parameters

_EXPERIMENTAL = (
    "Experimental: the teacher has no BatchNorm; image_priors says what guided the images in place of its "
    "statistics."
)


def write_model_card(path: Path, spec: ResolvedSpec, teacher: nn.Module, result: dict[str, Any]) -> None:
    """Write the model card: how good the student is, the networks, the method and the measurements."""
    card = {
        "quality": result["quality"],
        "student": {**result["student"], "labels": list(spec.labels), "input_size": list(spec.input_size)},
        "teacher": {
            "architecture": spec.teacher_architecture,
            "parameters": count_parameters(teacher),
            "notes": list(spec.teacher_notes),
        },
        "experimental": is_experimental(teacher),
        "image_priors": [asdict(prior) for prior in image_priors(teacher, spec.config)],
        "normalization": spec.normalization.model_dump(mode="json"),
        "method": {
            "name": METHODS[spec.method].title,
            "preset": spec.preset,
            "config": spec.config.model_dump(),
            "text_encoder": spec.text_encoder.model_dump(),
            "seed": result["seed"],
            "warm_bank": result["warm_bank"],
            "precision": result["precision"],
            "device": result["device"],
            "torch": torch.__version__,
            "distill_seconds": result["distill_seconds"],
        },
        "adaptation": result["adaptation"],
        "metrics": result["metrics"],
        "limits": [
            "A number holds for what it was measured on and for nothing else.",
            "Distillation without data gives no protection of privacy or membership.",
            "What is wrong or planted in the teacher may be in the student.",
            *([_EXPERIMENTAL] if is_experimental(teacher) else []),
        ],
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
