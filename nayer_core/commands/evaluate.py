"""The command `evaluate`: accuracy of a network on a set of images, and agreement with its teacher."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nayer_core.commands import teacher_reading
from nayer_core.commands.spec_file import read_job_spec
from nayer_core.contract.events import Emit, Phase, PhaseEvent
from nayer_core.contract.spec import JobSpec
from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.measuring.evaluation import predict, share_equal
from nayer_core.networks.weights import read_weights
from nayer_core.uploads.conversion import convert_evaluation


def run(args: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    """Measure accuracy, and with `args.teacher` agreement. Computes in float32.

    Returns:
        `accuracy`, `count` and, with a teacher, `teacher_accuracy` and `agreement`, in [0, 1].
    """
    emit(PhaseEvent(phase=Phase.EVALUATE))
    spec = read_job_spec(args.spec)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        canonical = scratch / "evaluation.safetensors"
        size = spec.teacher.input_size
        convert_evaluation(args.images, canonical, input_size=size, num_classes=len(spec.labels))
        evaluation = read_weights(canonical)
        predictions = _predict(args.network, args.architecture, spec, evaluation["images"], device, scratch)
        result = {
            "accuracy": share_equal(predictions, evaluation["labels"]),
            "count": len(evaluation["labels"]),
        }
        if args.teacher is not None:
            teacher_predictions = _predict(
                args.teacher, spec.teacher.architecture, spec, evaluation["images"], device, scratch
            )
            result["teacher_accuracy"] = share_equal(teacher_predictions, evaluation["labels"])
            result["agreement"] = share_equal(predictions, teacher_predictions)
    return result


def _predict(
    path: Path, architecture: str, spec: JobSpec, images: Tensor, device: torch.device, scratch: Path
) -> Tensor:
    """Predict classes with the network in a file, which is read like an upload."""
    network = teacher_reading.read_teacher(
        path,
        architecture,
        num_classes=len(spec.labels),
        input_size=spec.teacher.input_size,
        scratch=scratch,
    ).network.to(device)
    mean = torch.tensor(spec.teacher.normalization.mean, device=device)
    std = torch.tensor(spec.teacher.normalization.std, device=device)
    normalise_only = Augmentation(mean, std, crop_padding=0, flip=False)
    return predict(network, images, normalise_only, Arithmetic(device, torch.float32))
