"""A teacher of letters at 96 pixels or more, distilled with an everyday preset: accuracy over seconds.

    python -m benchmarks.large_images [--preset quick] [--side 96] [--seeds 0] [--set FIELD=VALUE ...]

The teacher is trained first if it is not in the cache (`benchmarks.letters`). Accuracy is measured on letters
of font families that the teacher has never seen. `--set` changes fields of the configuration.
"""

import argparse
import json
import resource
import time
from typing import Any

import torch

from benchmarks import letters, machine, runs
from benchmarks.letters import LetterTeacher
from benchmarks.runs import PreparedRun
from nayer_core.contract.methods import METHODS
from nayer_core.hardware.allocator import keep_freed_memory
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.networks.registry import build

STUDENT = "timm/mobilenetv3_small_050"
MEASUREMENTS = 6  # on the way


def prepare(
    teacher: LetterTeacher, student: str, preset: str, overrides: dict[str, Any], seed: int, emit: Any = None
) -> PreparedRun:
    """Set a run up, ready to start.

    Args:
        teacher: whom to learn from.
        student: its name in the registry.
        preset: where the configuration starts from.
        overrides: its fields that differ; letters are not mirrored in any case.
        seed: of the run.
        emit: receives its events.
    """
    _, config = METHODS["nayer"].resolve_config(preset, {"flip": False, **overrides}, teacher.input_size)
    torch.manual_seed(seed)
    network = build(student, num_classes=len(letters.LABELS), input_size=teacher.input_size)
    embedded = text_encoders.embed("gaussian", "a photo of a {label}", letters.LABELS)
    codes, _ = text_encoders.prepare(embedded.label_embeddings, whiten=True)
    return runs.prepare(
        teacher.load(),
        network,
        codes,
        teacher.input_size,
        config,
        normalization=(letters.MEAN, letters.STD),
        seed=seed,
        emit=emit or (lambda _event: None),
    )


def follow(prepared: PreparedRun, held_out: EvaluationSet, label: str) -> float:
    """Distil, and print accuracy and seconds on the way.

    Args:
        prepared: at its beginning.
        held_out: what accuracy is measured on; the seconds that takes are not counted.
        label: begins each line.

    Returns:
        The accuracy of the student after the last epoch.
    """
    plan, start, measuring = prepared.run.plan, time.perf_counter(), 0.0
    accuracy = 0.0

    def after_epoch() -> None:
        nonlocal measuring, accuracy
        trained, epochs = prepared.method.epoch - plan.warmup_epochs, plan.epochs - plan.warmup_epochs
        if trained < 1 or (trained % max(1, epochs // MEASUREMENTS) and trained < epochs):
            return
        pause = time.perf_counter()
        accuracy, seconds = prepared.accuracy(held_out), pause - start - measuring
        print(
            f"{label}  epoch {trained}/{epochs}  {seconds:.0f} s  {accuracy:.4f}",
            flush=True,
        )
        measuring += time.perf_counter() - pause

    prepared.run.go_on(after_epoch=after_epoch)
    return accuracy


def main() -> None:
    """Distil once for each seed, and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", default=LetterTeacher.architecture)
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--side", type=int, default=LetterTeacher.side)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="values are JSON")
    args = parser.parse_args()
    keep_freed_memory()
    overrides = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in args.set)}
    teacher, held_out = LetterTeacher(args.teacher, args.side), letters.images_of("held_out", args.side)
    of_teacher = letters.accuracy(teacher.load(), held_out)
    print(f"{machine.describe()}; {args.teacher} at {args.side} pixels: {of_teacher:.4f}", flush=True)
    for seed in args.seeds:
        prepared = prepare(teacher, args.student, args.preset, overrides, seed)
        accuracy = follow(prepared, held_out, f"{args.preset} seed {seed}")
        print(f"{args.preset} seed {seed}: {accuracy:.4f}, {accuracy / of_teacher:.1%} of the teacher's")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
