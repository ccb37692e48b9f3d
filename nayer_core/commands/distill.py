"""The command `distill`: canonical files in a folder -> a student and what is known of it."""

import argparse
import contextlib
import json
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from nayer_core.commands import inspection
from nayer_core.commands.model_card import write_model_card
from nayer_core.commands.samples import write_samples
from nayer_core.contract.artifacts import METRICS, MODEL_CARD, PARTIAL_STUDENT, SAMPLES, STUDENT
from nayer_core.contract.banks import bank_key
from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import EXIT_STOPPED, Emit, Event, MetricsEvent, StoppedEvent, WarningEvent
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.hardware.allocator import keep_freed_memory
from nayer_core.hardware.device_memory import is_out_of_memory
from nayer_core.hardware.precision import Arithmetic, choose_arithmetic, compute_repeatably
from nayer_core.hardware.processes import Alone, folders_apart, joined
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.measuring.measurement import Measurement
from nayer_core.methods.nayer.algorithm import Distillation
from nayer_core.methods.nayer.warm_bank import BankUnusable, is_warm, save_warm_bank, take_warm_bank
from nayer_core.methods.parts.augmentation import Augmentation
from nayer_core.networks.network_file import Description
from nayer_core.networks.registry import build, count_parameters
from nayer_core.networks.weights import file_sha256, freeze, load_weights, read_weights
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.recovery import Recovery


@dataclass(frozen=True)
class Inputs:
    """The canonical files of a job, read and on the device."""

    spec: ResolvedSpec
    teacher: nn.Module
    lte: Tensor
    evaluation: EvaluationSet | None
    bank_key: str

    def augmentation(self, device: torch.device) -> Augmentation:
        """What stands between images and networks."""
        mean = torch.tensor(self.spec.normalization.mean, device=device)
        std = torch.tensor(self.spec.normalization.std, device=device)
        return Augmentation(mean, std, self.spec.config.crop_padding, self.spec.config.flip)


def run(args: argparse.Namespace, emit: Emit) -> dict[str, Any] | int:
    """Distil as the files in `args.input` ask, or inspect and embed first where it is run by hand.

    Fills `args.out` with student.safetensors, model_card.json, metrics.jsonl, samples.png, the
    folder checkpoint/ and, with `reuse_bank`, bank.safetensors for later runs. SIGTERM saves a
    checkpoint and ends with exit code 3. A run that diverges for good leaves the student of its
    last good state, partial_student.safetensors.
    """
    keep_freed_memory()
    compute_repeatably()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with joined(device) as processes, tempfile.TemporaryDirectory() as folder:
        if not processes.is_first:  # it leaves what the first leaves, where nobody looks
            args = argparse.Namespace(
                **{**vars(args), **folders_apart(args.out, args.resume, Path(folder) / "out")}
            )
        if args.input is not None:
            return _distill(args, args.input, device, processes, emit)
        by_hand = argparse.Namespace(**{**vars(args), "out": Path(folder)})
        inspection.run(by_hand, emit)
        if not (by_hand.out / "lte.safetensors").exists():
            text_encoders.run(by_hand, emit)
        return _distill(args, by_hand.out, device, processes, emit)


def _distill(
    args: argparse.Namespace, source: Path, device: torch.device, processes: Alone, emit: Emit
) -> dict[str, Any] | int:
    stop = _StopSignal(processes)
    inputs = read_inputs(source, device, emit)
    seed = inputs.spec.seed if args.seed is None else args.seed
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    student = build(
        inputs.spec.student_architecture,
        num_classes=inputs.spec.num_classes,
        input_size=inputs.spec.input_size,
    )
    student = student.to(device).to(memory_format=torch.channels_last)
    arithmetic = choose_arithmetic(inputs.spec.config.precision, device)
    with _MetricsFile(args.out / METRICS, emit) as metrics_file:
        try:
            return _run(args, inputs, student, arithmetic, seed, stop, metrics_file)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            capacity = inputs.spec.config.bank_capacity
            raise TrainingError(
                ErrorCode.DEVICE_OUT_OF_MEMORY,
                f"The {device.type} device has no room for the networks, a bank of up to {capacity} images "
                "and what is measured of the student.",
                "Lower config.bank_capacity, or choose smaller networks.",
            ) from error


def _run(
    args: argparse.Namespace,
    inputs: Inputs,
    student: nn.Module,
    arithmetic: Arithmetic,
    seed: int,
    stop: "_StopSignal",
    metrics_file: "_MetricsFile",
) -> dict[str, Any] | int:
    emit = metrics_file.emit
    spec, augment = inputs.spec, inputs.augmentation(arithmetic.device)
    distillation = Distillation(
        *(inputs.teacher, student, inputs.lte, spec.input_size, spec.config, augment, arithmetic),
        *(seed, emit, stop.processes),
    )
    recovery = Recovery(
        distillation,
        _own_checkpoints(args),
        spec.on_out_of_memory,
        after_return=lambda: metrics_file.begin(distillation.reported),
    )
    if args.resume is not None:
        distillation.resume(CheckpointFolder(args.resume))
    elif args.bank is not None:
        _take_bank(distillation, args.bank, inputs.bank_key, seed, emit)
    metrics_file.begin(distillation.reported)
    measurement = Measurement(distillation, inputs.teacher, inputs.evaluation, emit)

    def after_epoch() -> None:
        _leave_bank(distillation, args, inputs, seed)
        measurement.after_epoch()

    try:
        finished = recovery.run(
            checkpoint_seconds=args.checkpoint_seconds,
            after_epoch=after_epoch,
            should_stop=stop.is_wanted,
        )
    except TrainingError as error:
        if error.code is ErrorCode.DIVERGED:
            _save_student(distillation.distilled_student, spec, args.out / PARTIAL_STUDENT)
        raise
    if not finished:
        emit(StoppedEvent(reason="SIGTERM"))
        return EXIT_STOPPED
    return _finish(args.out, inputs, distillation, measurement, seed)


def _own_checkpoints(args: argparse.Namespace) -> CheckpointFolder:
    """Give the folder for this run's states; what an earlier run has left there is none of them."""
    own = CheckpointFolder(args.out / "checkpoint")
    if args.resume is None or args.resume.resolve() != own.path.resolve():
        own.clear()
    return own


def _finish(
    out: Path, inputs: Inputs, distillation: Distillation, measurement: Measurement, seed: int
) -> dict[str, Any]:
    """Measure the student and write what is left of the run."""
    spec, arithmetic = inputs.spec, distillation.arithmetic
    distill_seconds = distillation.seconds
    metrics = measurement.at_the_end(spec, seed)
    student_facts = _save_student(distillation.distilled_student, spec, out / STUDENT)
    write_samples(distillation.bank, spec.labels, out / SAMPLES)
    result = {
        "student": student_facts,
        "metrics": metrics,
        "distill_seconds": round(distill_seconds, 3),
        "precision": arithmetic.name,
        "device": arithmetic.device.type,
        "seed": seed,
        "adaptation": distillation.adaptation.told(spec.config),
        "warm_bank": distillation.warm_bank,
    }
    write_model_card(out / MODEL_CARD, spec, inputs.teacher, result)
    return result


def _take_bank(run: Distillation, bank: Path, key: str, seed: int, emit: Emit) -> None:
    try:
        emit(take_warm_bank(run, bank, key=key, seed=seed))
    except BankUnusable as unusable:
        message = f"The bank of an earlier run is not used: {unusable}. The run warms up itself."
        emit(WarningEvent(code="bank_unusable", message=message))


def _leave_bank(run: Distillation, args: argparse.Namespace, inputs: Inputs, seed: int) -> None:
    """Write the warm-up for later runs, once, where that is wanted and it was this run's own."""
    if inputs.spec.reuse_bank and is_warm(run) and run.warm_bank is None and not run.adaptation.history:
        path = args.out / "bank.safetensors"
        save_warm_bank(run, path, key=inputs.bank_key, seed=seed, made_by=args.name)


def _save_student(student: nn.Module, spec: ResolvedSpec, path: Path) -> dict[str, Any]:
    """Write the student, with what is needed to use it in the file's header."""
    description = Description(
        architecture=spec.student_architecture,
        labels=spec.labels,
        input_size=spec.input_size,
        normalization=spec.normalization,
    )
    description.save(student, path)
    return {
        "architecture": spec.student_architecture,
        "parameters": count_parameters(student),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
    }


def read_inputs(folder: Path, device: torch.device, emit: Emit) -> Inputs:
    """Read what inspect and embed wrote.

    Args:
        folder: holds spec.json, teacher.safetensors, lte.safetensors and perhaps
            evaluation.safetensors.
        device: where the networks shall run.
        emit: receives warnings about the embeddings.
    """
    spec = ResolvedSpec.model_validate_json((folder / "spec.json").read_bytes())
    teacher = build(spec.teacher_architecture, num_classes=spec.num_classes, input_size=spec.input_size)
    load_weights(teacher, read_weights(folder / "teacher.safetensors"), spec.teacher_architecture)
    teacher = freeze(teacher).to(device).to(memory_format=torch.channels_last)
    lte, warnings = text_encoders.prepare(
        read_weights(folder / "lte.safetensors")["lte"], whiten=bool(spec.text_encoder.whiten)
    )
    for code, message in warnings:
        emit(WarningEvent(code=code, message=message))
    evaluation = None
    if (path := folder / "evaluation.safetensors").exists():
        tensors = read_weights(path)
        evaluation = EvaluationSet(tensors["images"], tensors["labels"])
    key = bank_key(
        spec.model_dump(mode="json"),
        teacher_sha256=file_sha256(folder / "teacher.safetensors"),
        lte_sha256=file_sha256(folder / "lte.safetensors"),
    )
    return Inputs(spec, teacher, lte.to(device), evaluation, key)


class _StopSignal:
    """Remembers that SIGTERM came, to whichever of the processes."""

    def __init__(self, processes: Alone) -> None:
        self.processes = processes
        self.requested = False
        signal.signal(signal.SIGTERM, self._request)

    def is_wanted(self) -> bool:
        """Whether the run shall stop; all processes get the same answer."""
        return self.processes.any(self.requested)

    def _request(self, *_: object) -> None:
        self.requested = True


class _MetricsFile:
    """Passes events on and keeps every metrics event of the run in a file, however fast they come."""

    def __init__(self, path: Path, emit: Emit):
        self._path = path
        self._emit = emit
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def begin(self, earlier: Sequence[MetricsEvent]) -> None:
        """Write what was reported up to the checkpoint, in place of what is told of another way on."""
        self._closing.close()
        self._file = self._closing.enter_context(self._path.open("w", encoding="utf-8"))
        for event in earlier:
            self._write(event)

    def emit(self, event: Event) -> None:
        if isinstance(event, MetricsEvent):
            self._write(event)
        self._emit(event)

    def _write(self, event: MetricsEvent) -> None:
        row = {"epoch": event.epoch, "step": event.step, **event.values}
        self._file.write(json.dumps(row) + "\n")
