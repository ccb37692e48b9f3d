"""What is known of a student, each number with what it was measured on."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nayer_core.contract.events import Emit, Phase, PhaseEvent
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.distill import Distillation, EvaluationSet
from nayer_core.evaluation import accuracy_bounds, predict, share_equal
from nayer_core.networks.registry import count_parameters
from nayer_core.precision import Arithmetic
from nayer_core.synthesis import Synthesizer

HELD_OUT_ROUNDS = 2

ON_EVALUATION_SET = "the evaluation set uploaded with the job ({count} images)"
ON_HELD_OUT_SYNTHETIC = (
    "{count} synthetic images of a generator trained for this alone, none of which the student "
    "learned from; agreement on synthetic images is not accuracy on real ones"
)
STATED_BY_CLIENT = "stated by the client (teacher.accuracy); not measured here"


def measure(
    distillation: Distillation,
    teacher: nn.Module,
    spec: ResolvedSpec,
    evaluation: EvaluationSet | None,
    seed: int,
    emit: Emit,
) -> dict[str, dict[str, Any]]:
    """Compare student and teacher on the client's images, or else on fresh synthetic ones.

    Returns:
        By name: `value` in [0, 1] (for bounds `lower` and `upper`) and `measured_on`.
    """
    emit(PhaseEvent(phase=Phase.EVALUATE))
    if evaluation is not None:
        return _on_evaluation_set(distillation, teacher, evaluation)
    agreement, count = _on_held_out_synthetic(distillation, teacher, spec, seed)
    measured_on = ON_HELD_OUT_SYNTHETIC.format(count=count)
    metrics: dict[str, dict[str, Any]] = {
        "agreement_on_synthetic": {"value": agreement, "measured_on": measured_on}
    }
    if spec.teacher_accuracy is not None:
        lower, upper = accuracy_bounds(spec.teacher_accuracy, agreement)
        metrics["teacher_accuracy"] = {"value": spec.teacher_accuracy, "measured_on": STATED_BY_CLIENT}
        metrics["student_accuracy_bounds"] = {
            "lower": lower,
            "upper": upper,
            "measured_on": f"{measured_on}; would hold on real images only if agreement there were the same",
        }
    return metrics


def _on_evaluation_set(
    distillation: Distillation, teacher: nn.Module, evaluation: EvaluationSet
) -> dict[str, dict[str, Any]]:
    measured_on = ON_EVALUATION_SET.format(count=len(evaluation.labels))
    augment, exact = distillation.augment, _exact(distillation)
    by_teacher = predict(teacher, evaluation.images, augment, exact)
    by_student = predict(distillation.student, evaluation.images, augment, exact)
    values = {
        "teacher_accuracy": share_equal(by_teacher, evaluation.labels),
        "student_accuracy": share_equal(by_student, evaluation.labels),
        "agreement": share_equal(by_student, by_teacher),
    }
    return {name: {"value": value, "measured_on": measured_on} for name, value in values.items()}


def _on_held_out_synthetic(
    distillation: Distillation, teacher: nn.Module, spec: ResolvedSpec, seed: int
) -> tuple[float, int]:
    """Agreement on the images of a fresh generator, and how many they are."""
    device = distillation.arithmetic.device
    rng = torch.Generator(device).manual_seed(seed + 1)
    synthesizer = Synthesizer(
        teacher,
        distillation.lte,
        spec.input_size,
        spec.config,
        distillation.augment,
        distillation.arithmetic,
        rng,
    )
    synthesizer.redraw_generator()
    rounds = [synthesizer.run_round(index, None).images for index in range(HELD_OUT_ROUNDS)]
    images = torch.cat(rounds)
    by_teacher = predict(teacher, images, distillation.augment, _exact(distillation))
    by_student = predict(distillation.student, images, distillation.augment, _exact(distillation))
    return share_equal(by_student, by_teacher), len(images)


def _exact(distillation: Distillation) -> Arithmetic:
    """What is reported is measured in float32, whatever the run was made in."""
    return Arithmetic(distillation.arithmetic.device, torch.float32)


def write_model_card(path: Path, spec: ResolvedSpec, teacher: nn.Module, result: dict[str, Any]) -> None:
    """Write the model card: what was made of what, how, and how good it is known to be."""
    card = {
        "student": {**result["student"], "labels": list(spec.labels), "input_size": list(spec.input_size)},
        "teacher": {"architecture": spec.teacher_architecture, "parameters": count_parameters(teacher)},
        "normalization": spec.normalization.model_dump(mode="json"),
        "method": {
            "name": "NAYER (Tran et al., CVPR 2024), data-free: no real image was used in training",
            "preset": spec.preset,
            "config": spec.config.model_dump(),
            "text_encoder": spec.text_encoder.model_dump(),
            "seed": result["seed"],
            "precision": result["precision"],
            "device": result["device"],
            "torch": torch.__version__,
            "distill_seconds": result["distill_seconds"],
        },
        "metrics": result["metrics"],
        "limits": [
            "A number holds for what it was measured on and for nothing else.",
            "Distillation without data gives no protection of privacy or membership.",
            "What is wrong or planted in the teacher may be in the student.",
        ],
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
