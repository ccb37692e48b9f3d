"""The command `distill`: canonical files in a folder -> a student with its measurements."""

import argparse
import contextlib
import json
import signal
import tempfile
from collections.abc import Iterator, Sequence
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
from nayer_core.hardware.machine import Machine
from nayer_core.hardware.peers import Peers, folders_apart, joined
from nayer_core.hardware.precision import choose_arithmetic, compute_repeatably
from nayer_core.images.augmentation import Augmentation
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.measuring.measurement import Measurement
from nayer_core.methods.registry import build_method
from nayer_core.networks.network_file import Description
from nayer_core.networks.registry import build, count_parameters
from nayer_core.networks.weights import file_sha256, freeze, load_weights, read_weights
from nayer_core.running.checkpoint import CheckpointFolder
from nayer_core.running.method import Distillands
from nayer_core.running.recovery import Recovery
from nayer_core.running.run import Run
from nayer_core.running.warm_bank import BankUnusable, is_warm, save_warm_bank, take_warm_bank
from nayer_core.tasks.classification import Classification


@dataclass(frozen=True)
class Inputs:
    """The content of a job's canonical files, on the device."""

    spec: ResolvedSpec
    teacher: nn.Module
    label_embeddings: Tensor
    evaluation: EvaluationSet | None
    bank_key: str

    def distillands(self, seed: int, machine: Machine) -> Distillands:
        """Build a student with weights from the seed, and put it beside teacher and label embeddings."""
        spec = self.spec
        torch.manual_seed(seed)
        student = build(spec.student_architecture, num_classes=spec.num_classes, input_size=spec.input_size)
        mean = torch.tensor(spec.normalization.mean, device=machine.device)
        std = torch.tensor(spec.normalization.std, device=machine.device)
        augment = Augmentation(mean, std, spec.config.crop_padding, spec.config.flip)
        teacher, student = machine.place(self.teacher), machine.place(student)
        return Distillands(teacher, student, self.label_embeddings, spec.input_size, augment)


def run(args: argparse.Namespace, emit: Emit) -> dict[str, Any] | int:
    """Distil from the canonical files in `args.input`; without it, inspect and embed `args.teacher` first.

    Writes student.safetensors, model_card.json, metrics.jsonl, samples.png, the folder checkpoint/ and, with
    `reuse_bank`, bank.safetensors for later runs into `args.out`. SIGTERM saves a checkpoint and ends the run
    with exit code 3. A run that diverges after its last rollback writes the student of its last good state,
    partial_student.safetensors.
    """
    keep_freed_memory()
    compute_repeatably()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with joined(device) as peers, tempfile.TemporaryDirectory() as folder:
        if not peers.is_first:  # it writes the same files as the first, into a temporary folder
            vars(args).update(folders_apart(args.out, args.resume, Path(folder) / "out"))
        if args.input is None:
            args.input = _inspect_and_embed(args, Path(folder), emit)
        args.out.mkdir(parents=True, exist_ok=True)
        with _MetricsFile(args.out / METRICS, emit) as metrics_file, _out_of_memory_explained(device):
            return _distill(args, device, peers, metrics_file)


def _inspect_and_embed(args: argparse.Namespace, folder: Path, emit: Emit) -> Path:
    """Write the canonical files of a run that has none."""
    by_hand = argparse.Namespace(**vars(args))
    by_hand.out = folder
    inspection.run(by_hand, emit)
    if not (folder / "lte.safetensors").exists():
        text_encoders.run(by_hand, emit)
    return folder


@contextlib.contextmanager
def _out_of_memory_explained(device: torch.device) -> Iterator[None]:
    """Turn an out-of-memory error outside the steps into one for the client; `Recovery` handles the steps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            ErrorCode.DEVICE_OUT_OF_MEMORY,
            f"The {device.type} device has no room for the networks, the memory bank and what is measured "
            "of the student.",
            "Lower config.bank_capacity, or choose smaller networks.",
        ) from error


def _distill(
    args: argparse.Namespace, device: torch.device, peers: Peers, metrics_file: "_MetricsFile"
) -> dict[str, Any] | int:
    stop, emit = _StopSignal(peers), metrics_file.emit
    inputs = read_inputs(args.input, device, emit)
    spec = inputs.spec
    seed = spec.seed if args.seed is None else args.seed
    machine = Machine(choose_arithmetic(spec.config.precision, device), seed, peers)
    distillands = inputs.distillands(seed, machine)
    method = build_method(spec.method, distillands, spec.config, Classification(spec.num_classes), machine)
    run = Run(method, spec.config, machine, emit)
    recovery = Recovery(
        run,
        _own_checkpoints(args),
        spec.on_out_of_memory,
        after_return=lambda: metrics_file.begin(run.reported),
    )
    if args.resume is not None:
        run.resume(CheckpointFolder(args.resume))
    elif args.bank is not None:
        _take_bank(run, args.bank, inputs.bank_key, seed)
    metrics_file.begin(run.reported)
    measurement = Measurement(run, distillands, inputs.evaluation)

    def after_epoch() -> None:
        _keep_bank(run, args, inputs, seed)
        measurement.after_epoch()

    try:
        finished = recovery.go_on(
            checkpoint_seconds=args.checkpoint_seconds,
            after_epoch=after_epoch,
            should_stop=stop.is_requested,
        )
    except TrainingError as error:
        if error.code is ErrorCode.DIVERGED:
            _save_student(run.student, spec, args.out / PARTIAL_STUDENT)
        raise
    if not finished:
        emit(StoppedEvent(reason="SIGTERM"))
        return EXIT_STOPPED
    return _finish(args.out, inputs, run, measurement, seed)


def _own_checkpoints(args: argparse.Namespace) -> CheckpointFolder:
    """Return the folder for this run's checkpoints, without those of an earlier run."""
    own = CheckpointFolder(args.out / "checkpoint")
    if args.resume is None or args.resume.resolve() != own.path.resolve():
        own.clear()
    return own


def _finish(out: Path, inputs: Inputs, run: Run, measurement: Measurement, seed: int) -> dict[str, Any]:
    """Measure the student and write the run's files."""
    spec, arithmetic = inputs.spec, run.machine.arithmetic
    distill_seconds = run.seconds
    measured = measurement.at_the_end(spec, seed)
    student_facts = _save_student(run.student, spec, out / STUDENT)
    write_samples(run.method.bank, spec.labels, out / SAMPLES)
    result = {
        "student": student_facts,
        "quality": measured.quality,
        "metrics": measured.metrics,
        "distill_seconds": round(distill_seconds, 3),
        "precision": arithmetic.name,
        "device": arithmetic.device.type,
        "seed": seed,
        "adaptation": run.adaptation.summary(spec.config),
        "warm_bank": run.warm_bank,
    }
    write_model_card(out / MODEL_CARD, spec, inputs.teacher, result)
    return result


def _take_bank(run: Run, bank: Path, key: str, seed: int) -> None:
    try:
        run.emit(take_warm_bank(run, bank, key=key, seed=seed))
    except BankUnusable as unusable:
        message = f"The bank of an earlier run is not used: {unusable}. The run warms up itself."
        run.emit(WarningEvent(code="bank_unusable", message=message))


def _keep_bank(run: Run, args: argparse.Namespace, inputs: Inputs, seed: int) -> None:
    """Write the warm-up for later runs, if the client allows it and this run made it."""
    if inputs.spec.reuse_bank and is_warm(run) and run.warm_bank is None and not run.adaptation.history:
        path = args.out / "bank.safetensors"
        save_warm_bank(run, path, key=inputs.bank_key, seed=seed, made_by=args.name)


def _save_student(student: nn.Module, spec: ResolvedSpec, path: Path) -> dict[str, Any]:
    """Write the student; the file's header has its description."""
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
    """Read the files that inspect and embed wrote.

    Args:
        folder: holds spec.json, teacher.safetensors, lte.safetensors and perhaps
            evaluation.safetensors.
        device: where the networks run.
        emit: receives warnings about the embeddings.
    """
    spec = ResolvedSpec.model_validate_json((folder / "spec.json").read_bytes())
    teacher = build(spec.teacher_architecture, num_classes=spec.num_classes, input_size=spec.input_size)
    load_weights(teacher, read_weights(folder / "teacher.safetensors"), spec.teacher_architecture)
    teacher = freeze(teacher).to(device).to(memory_format=torch.channels_last)
    label_embeddings, warnings = text_encoders.prepare(
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
        embeddings_sha256=file_sha256(folder / "lte.safetensors"),
    )
    return Inputs(spec, teacher, label_embeddings.to(device), evaluation, key)


class _StopSignal:
    """Records SIGTERM, in any of the processes."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.requested = False
        signal.signal(signal.SIGTERM, self._request)

    def is_requested(self) -> bool:
        """Whether the run is to stop; all processes get the same answer."""
        return self.peers.any(self.requested)

    def _request(self, *_: object) -> None:
        self.requested = True


class _MetricsFile:
    """Forwards events, and writes every metrics event of the run to a file, at any rate."""

    def __init__(self, path: Path, emit: Emit):
        self._path = path
        self._emit = emit
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def begin(self, earlier: Sequence[MetricsEvent]) -> None:
        """Start the file again with the events up to the checkpoint that the run continues from."""
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
