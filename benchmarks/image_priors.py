"""Priors on images that may replace L_BN if the teacher has no BatchNorm, side by side.

    python -m benchmarks.image_priors [NAME ...] [--seeds 0 1 2]

A LeNet-5 teacher for MNIST digits, a wrn_10_1 student, Gaussian label codes; accuracy on the 1,000
digits kept aside. One row a prior. The method has `input statistics`; the others are implemented here.
Rows already in the results file for a seed are not run again.
"""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine, runs, tables
from benchmarks.runs import PreparedRun
from benchmarks.trials import EVERYDAY
from examples.mnist_teacher import INPUT_SIZE, LABELS, MEAN, STD, accuracy, load_digits, train_teacher
from nayer_core.contract.methods import METHODS
from nayer_core.hardware.machine import Losses
from nayer_core.label_embeddings import text_encoders
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

RESULTS = Path(__file__).parent / "results" / "image_priors.jsonl"
TEACHER, STUDENT = "lenet5", "wrn_10_1"
# The demo's configuration when the prior was chosen, with 8 epochs in place of 12; one thread for torch.
CONFIG: dict[str, Any] = {
    **EVERYDAY,
    "epochs": 8,
    "warmup_epochs": 1,
    "warmup_rounds_per_epoch": 3,
    "generator_steps": 20,
    "synthesis_batch_size": 100,
    "student_averaging": 0.97,
    "flip": False,
    "crop_padding": 2,
    "student_steps": 50,
    "student_batch_size": 128,
    "generator_width": 32,
    "noise_dim": 256,
    "generator_lr": 0.01,
    "student_lr": 0.1,
}

Prior = Callable[[Tensor, Tensor], Tensor]  # (normalised images, inputs of the last Linear) -> scalar


def total_variation(inputs: Tensor, _features: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, both ways (DeepInversion's R_TV, as a mean)."""
    rows, columns = inputs[..., 1:, :] - inputs[..., :-1, :], inputs[..., 1:] - inputs[..., :-1]
    return rows.abs().mean() + columns.abs().mean()


def squares(inputs: Tensor, _features: Tensor) -> Tensor:
    """Mean square of the normalised images (DeepInversion's R_l2, as a mean)."""
    return inputs.square().mean()


def activation(_inputs: Tensor, features: Tensor) -> Tensor:
    """Reward strong features (DAFL's L_a, as a mean)."""
    return -features.float().abs().mean()


# name -> (weight of the input statistics, weight of another prior, which one)
ROWS: dict[str, tuple[float, float, Prior]] = {
    "none": (0.0, 0.0, squares),
    "input statistics 0.3": (0.3, 0.0, squares),
    "input statistics 1": (1.0, 0.0, squares),
    "total variation 0.1": (0.0, 0.1, total_variation),
    "total variation 1": (0.0, 1.0, total_variation),
    "l2 0.1": (0.0, 0.1, squares),
    "activation 0.1": (0.0, 0.1, activation),
    "input statistics 0.3, total variation 0.1": (0.3, 0.1, total_variation),
}


def main() -> None:
    """Run what is missing and print the table."""
    args = tables.rows_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    tables.print_accuracies(args.rows or list(ROWS), args.seeds, _accuracy)


def _accuracy(name: str, seed: int) -> float:
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        row = json.loads(line)
        if (row["row"], row["seed"]) == (name, seed):
            return float(row["accuracy"])
    teacher = load_teacher()
    _, aside = load_digits()
    weight, other_weight, other = ROWS[name]
    prepared = _prepare(weight, teacher, seed)
    with _additional_prior(prepared, other_weight, other):
        prepared.run.go_on()
    row = {"row": name, "seed": seed, "accuracy": round(accuracy(prepared.run.student.eval(), aside), 4)}
    row |= {"teacher": round(accuracy(teacher, aside), 4), "machine": machine.describe()}
    row["brightness"] = round(prepared.method.bank.images[-300:].float().mean().item() / 255, 3)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return float(row["accuracy"])


def _prepare(weight: float, teacher: nn.Module, seed: int) -> PreparedRun:
    _, config = METHODS["nayer"].resolve_config(
        "paper-cifar10", CONFIG | {"image_prior_weight": weight}, INPUT_SIZE
    )
    torch.manual_seed(seed)
    student = build(STUDENT, num_classes=len(LABELS), input_size=INPUT_SIZE)
    label_embeddings = text_encoders.embed("gaussian", "a photo of a {label}", LABELS).label_embeddings
    codes, _ = text_encoders.prepare(label_embeddings, whiten=True)
    normalization = ([MEAN], [STD])
    return runs.prepare(teacher, student, codes, INPUT_SIZE, config, normalization=normalization, seed=seed)


@contextmanager
def _additional_prior(prepared: PreparedRun, weight: float, prior: Prior) -> Iterator[None]:
    """During the block, add one term to the loss of a run's synthesis."""
    synthesizer: Any = prepared.method.synthesizer
    plain = synthesizer._loss
    tensors: dict[str, Tensor] = {}
    head = [layer for layer in synthesizer.teacher.modules() if isinstance(layer, nn.Linear)][-1]
    hooks = [
        synthesizer.teacher.register_forward_pre_hook(lambda _, inputs: tensors.update(inputs=inputs[0])),
        head.register_forward_pre_hook(lambda _, inputs: tensors.update(features=inputs[0])),
    ]

    def with_prior(*arguments: Any) -> Losses:
        losses = plain(*arguments)
        total = losses.total + weight * prior(tensors["inputs"], tensors["features"])
        return Losses(total, losses.terms, losses.outputs)

    if weight:
        synthesizer._loss = with_prior
    yield
    for hook in hooks:
        hook.remove()


@functools.cache
def load_teacher() -> nn.Module:
    """Train the LeNet-5 on 4,000 digits; at the rate that suits a residual network it would die."""
    training, _ = load_digits()
    network = train_teacher(training, architecture=TEACHER, epochs=20, peak_learning_rate=0.02)
    return freeze(network).to(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
