"""The command `inspect`: a stranger's files -> canonical files and a report.

Every upload is parsed in the jail (`nayer_core.uploads`), which returns safetensors. These are still a
stranger's data, but dense, finite and bounded. Only then they are compared with the known networks.
"""

import argparse
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.commands.reading_notes import OF_THE_TEACHER
from nayer_core.commands.spec_file import read_job_spec
from nayer_core.commands.teacher_reading import Teacher, read_teacher
from nayer_core.contract.artifacts import REPORT
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import Emit, Phase, PhaseEvent, WarningEvent
from nayer_core.contract.spec import JobSpec, ResolvedSpec
from nayer_core.label_embeddings.text_encoders import embedding_dim
from nayer_core.methods.parts.bn_regularization import BNRegularization, is_experimental
from nayer_core.methods.parts.image_priors import image_priors
from nayer_core.methods.registry import method_class
from nayer_core.networks.registry import InputSize, build_on_meta, count_parameters
from nayer_core.networks.weights import save_weights
from nayer_core.running.estimate import Estimate
from nayer_core.uploads import conversion, side_files
from nayer_core.uploads.refusals import refuse

_PROBE_IMAGES = 4
_MEASURED_PIXELS = 96  # the largest side in benchmarks/results/large_images.md


def run(args: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    """Turn uploads into the canonical files of a job, in `args.out`.

    Writes teacher.safetensors, spec.json and report.json, and with the uploads for them
    evaluation.safetensors and lte.safetensors.

    Returns:
        The report.

    Raises:
        SpecError, TeacherError, UploadError: the request cannot work; `run_too_large` where the run is
            estimated to need more than `args.memory_bytes`.
    """
    emit(PhaseEvent(phase=Phase.INSPECT))
    spec = read_job_spec(args.spec)
    args.out.mkdir(parents=True, exist_ok=True)
    warnings, width = _convert_side_files(args, spec)
    teacher = read_teacher(
        args.teacher,
        spec.teacher.architecture,
        num_classes=len(spec.labels),
        input_size=spec.teacher.input_size,
        scratch=args.out,
        weights=spec.teacher.weights,
    )
    resolved = _resolve(spec, teacher)
    warnings += _warnings(teacher, resolved)
    cost = method_class(resolved.method).estimate(resolved, width)
    if args.memory_bytes is not None:
        cost.require_memory(args.memory_bytes)
    report = _report(teacher, resolved, cost, warnings)
    save_weights(teacher.network, args.out / "teacher.safetensors")
    (args.out / "spec.json").write_text(resolved.model_dump_json(), encoding="utf-8")
    (args.out / REPORT).write_text(json.dumps(report), encoding="utf-8")
    for warning in warnings:
        emit(warning)
    return report


def _convert_side_files(args: argparse.Namespace, spec: JobSpec) -> tuple[list[WarningEvent], int]:
    """Turn the evaluation set and the embeddings, if given, into canonical files.

    Returns:
        Warnings, and the size of the label-text embeddings that the run will have.
    """
    num_classes = len(spec.labels)
    if args.evaluation is not None:
        conversion.convert_evaluation(
            args.evaluation,
            args.out / "evaluation.safetensors",
            input_size=spec.teacher.input_size,
            num_classes=num_classes,
        )
    encoder = spec.text_encoder.name
    if encoder == "file":
        if args.embeddings is None:
            raise side_files.bad_embeddings(
                "is missing", "Send it as the part 'embeddings', or choose another text_encoder.name."
            )
        target = args.out / "lte.safetensors"
        return [], conversion.convert_embeddings(args.embeddings, target, num_classes=num_classes)
    warnings = []
    if args.embeddings is not None:
        message = f"text_encoder.name is {encoder!r}: the embeddings file is not used; 'file' would use it."
        warnings.append(WarningEvent(code="embeddings_unused", message=message))
    return warnings, embedding_dim(encoder, num_classes)


def _resolve(spec: JobSpec, teacher: Teacher) -> ResolvedSpec:
    preset, config = spec.resolved_config()
    return ResolvedSpec(
        labels=spec.labels,
        input_size=spec.teacher.input_size,
        normalization=spec.teacher.normalization,
        teacher_architecture=teacher.recognition.architecture,
        teacher_notes=tuple(
            warning.message for warning in teacher.warnings(spec.labels) if warning.code in OF_THE_TEACHER
        ),
        teacher_accuracy=spec.teacher.accuracy,
        student_architecture=spec.student.architecture,
        method=spec.method,
        preset=preset,
        config=config,
        text_encoder=spec.resolved_text_encoder(),
        seed=spec.seed,
        on_out_of_memory=spec.on_out_of_memory,
        reuse_bank=spec.reuse_bank,
    )


def _warnings(teacher: Teacher, spec: ResolvedSpec) -> list[WarningEvent]:
    """Return warnings about what may make the student bad without making the job impossible."""
    warnings = []
    logits = _probe(teacher.network, spec.input_size)
    if not bool(torch.isfinite(logits).all()):
        raise refuse(
            ErrorCode.NON_FINITE_WEIGHTS,
            "The teacher answers noise with NaN or infinite numbers.",
            "Upload weights that were trained, and check teacher.normalization and input_size.",
        )
    if torch.allclose(logits, logits[:1].expand_as(logits), rtol=1e-5, atol=1e-7):
        message = "The teacher gives the same answer whatever the image; there is nothing to learn from it."
        warnings.append(WarningEvent(code="constant_teacher", message=message))
    if is_experimental(teacher.network):
        message = (
            f"{spec.teacher_architecture} has no BatchNorm, whose statistics guide the images. What "
            "image_priors lists takes their place: experimental, and the student will be worse."
        )
        warnings.append(WarningEvent(code="no_batch_norm", message=message))
    if max(spec.input_size[1:]) > _MEASURED_PIXELS:
        message = (
            f"The presets were measured on images of up to {_MEASURED_PIXELS} pixels a side. With larger "
            "ones the student may be far worse than its teacher; send evaluation images to know."
        )
        warnings.append(WarningEvent(code="image_size_unmeasured", message=message))
    warnings += teacher.warnings(spec.labels)
    student_parameters, teacher_parameters = (
        _parameters(spec.student_architecture, spec),
        count_parameters(teacher.network),
    )
    if student_parameters > teacher_parameters:
        message = f"The student has {student_parameters} parameters and the teacher {teacher_parameters}."
        warnings.append(WarningEvent(code="student_larger_than_teacher", message=message))
    return warnings


@torch.no_grad()
def _probe(network: nn.Module, input_size: InputSize) -> Tensor:
    noise = torch.randn(_PROBE_IMAGES, *input_size, generator=torch.Generator().manual_seed(0))
    logits: Tensor = network(noise)
    return logits


def _parameters(architecture: str, spec: ResolvedSpec) -> int:
    network = build_on_meta(architecture, num_classes=spec.num_classes, input_size=spec.input_size)
    return count_parameters(network)


def _report(
    teacher: Teacher, spec: ResolvedSpec, cost: Estimate, warnings: list[WarningEvent]
) -> dict[str, Any]:
    return {
        "architecture": spec.teacher_architecture,
        "candidates": list(teacher.recognition.candidates),
        "parameters": count_parameters(teacher.network),
        "batch_norm_layers": len(BNRegularization(teacher.network, momentum=0.0).layers),
        "experimental": is_experimental(teacher.network),
        "image_priors": [asdict(prior) for prior in image_priors(teacher.network, spec.config)],
        "num_classes": spec.num_classes,
        "input_size": list(spec.input_size),
        "format": teacher.file.kind,
        "wrapped_in": teacher.wrapped_in,
        "prefix_removed": teacher.prefix,
        "averaged_weights": teacher.is_averaged,
        "tensors_left_out": len(teacher.recognition.left_out),
        "binary_head": teacher.recognition.is_binary,
        "student": {
            "architecture": spec.student_architecture,
            "parameters": _parameters(spec.student_architecture, spec),
        },
        "estimate": cost.document(),
        "warnings": [{"code": warning.code, "message": warning.message} for warning in warnings],
    }
