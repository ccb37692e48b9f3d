"""What may guide the images if the teacher has no BatchNorm, side by side.

    python -m benchmarks.image_priors [NAME ...] [--case digits] [--seeds 0 1 2]

Cases: `digits`, a LeNet-5 for MNIST, measured on the 1,000 digits kept aside; `fashion` and `fashion-vit`, a
LeNet-5 and a small vision transformer for Fashion-MNIST, measured on its 10,000 test images. The student is a
wrn_10_1, the label codes are Gaussian. One row a choice; what was tried and is not part of the method is in
`tried_priors`. Every row has the same number of steps. Rows already in the results file for a seed are not
run again.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import fashion, machine, runs, tables, tried_priors
from benchmarks.runs import PreparedRun
from benchmarks.trials import EVERYDAY
from examples import mnist_teacher
from nayer_core.contract.methods import METHODS
from nayer_core.hardware.precision import choose_arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.label_embeddings import text_encoders
from nayer_core.measuring.evaluation import EvaluationSet, predict, share_equal
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

RESULTS = Path(__file__).parent / "results" / "image_priors.jsonl"
STUDENT, INPUT_SIZE = "wrn_10_1", (1, 28, 28)
CPU = torch.device("cpu")
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


@dataclass(frozen=True)
class Case:
    """A teacher without BatchNorm, and real images to measure on.

    Args:
        teacher: trains it; frozen, the same on every call.
        images: that the teacher has not seen.
        labels: names of its classes.
        mean: of the training images in [0, 1].
        std: of the same.
        flip: whether a mirrored image keeps its class.
    """

    teacher: Callable[[], nn.Module]
    images: Callable[[], EvaluationSet]
    labels: Sequence[str]
    mean: float
    std: float
    flip: bool

    def accuracy(self, network: nn.Module) -> float:
        """Measure a network in float32."""
        augment = Augmentation(torch.tensor([self.mean]), torch.tensor([self.std]), 0, flip=False)
        images = self.images()
        predictions = predict(network, images.images, augment, choose_arithmetic("fp32", CPU))
        return share_equal(predictions, images.labels)


@dataclass(frozen=True)
class Row:
    """One choice.

    Args:
        config: fields of `DistillConfig`, beside those of `CONFIG`.
        terms: of `tried_priors`, with their weights.
        halved: the generator makes images of half the size, which are upsampled.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[tried_priors.Term, float] = field(default_factory=dict)
    halved: bool = False


NOTHING = {"image_prior_weight": 0.0}
ROWS: dict[str, Row] = {
    "none": Row(NOTHING),
    "input statistics 0.3": Row(),
    "input statistics 1": Row({"image_prior_weight": 1.0}),
    "total variation 0.1": Row(NOTHING, {tried_priors.total_variation: 0.1}),
    "total variation 1": Row(NOTHING, {tried_priors.total_variation: 1.0}),
    "l2 0.1": Row(NOTHING, {tried_priors.squares: 0.1}),
    "activation 0.1": Row(NOTHING, {tried_priors.activation: 0.1}),
    "feature target 1": Row(terms={tried_priors.feature_target: 1.0}),
    "feature difference 1": Row(terms={tried_priors.feature_difference: 1.0}),
    "roughness 0.3": Row(terms={tried_priors.excess_roughness: 0.3}),
    "patch entropy 1": Row(terms={tried_priors.patch_entropy: 1.0}),
    "patch entropy 1 alone": Row(NOTHING, {tried_priors.patch_entropy: 1.0}),
    "half resolution": Row(halved=True),
    "adversary 0.3": Row({"adv_weight": 0.3}),
    "no adversary": Row({"adv_weight": 0.0}),
    "procedural images 0.25": Row({"procedural_share": 0.25}),
    "procedural images 0.5": Row({"procedural_share": 0.5}),
    "procedural images 0.75": Row({"procedural_share": 0.75}),
    "procedural images alone": Row({"procedural_share": 1.0}),
    "input statistics 0.3, 1,200 student steps": Row({"student_steps": 150}),
    "procedural images 0.5, 1,200 student steps": Row({"procedural_share": 0.5, "student_steps": 150}),
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = tables.rows_parser(__doc__)
    parser.add_argument("--case", choices=CASES, default="digits")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{args.case}: teacher {CASES[args.case].accuracy(CASES[args.case].teacher()):.4f}")
    tables.print_accuracies(args.rows or list(ROWS), args.seeds, functools.partial(_accuracy, args.case))


def _accuracy(case: str, name: str, seed: int) -> float:
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        row = json.loads(line)
        if (row["case"], row["row"], row["seed"]) == (case, name, seed):
            return float(row["accuracy"])
    prepared = _prepare(CASES[case], ROWS[name], seed)
    start = time.process_time()
    with tried_priors.added_to(prepared, ROWS[name].terms):
        prepared.run.go_on()
    measured = {
        "cpu_seconds": round(time.process_time() - start, 1),
        "accuracy": round(CASES[case].accuracy(prepared.run.student), 4),
        "brightness": round(prepared.method.bank.images[-300:].float().mean().item() / 255, 3),
    }
    row = {"case": case, "row": name, "seed": seed, **measured, "machine": machine.describe()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return float(row["accuracy"])


def _prepare(case: Case, row: Row, seed: int) -> PreparedRun:
    config = {**CONFIG, "flip": case.flip, **row.config}
    _, resolved = METHODS["nayer"].resolve_config("paper-cifar10", config, INPUT_SIZE)
    torch.manual_seed(seed)
    student = build(STUDENT, num_classes=len(case.labels), input_size=INPUT_SIZE)
    label_embeddings = text_encoders.embed("gaussian", "a photo of a {label}", case.labels).label_embeddings
    codes, _ = text_encoders.prepare(label_embeddings, whiten=True)
    normalization = ([case.mean], [case.std])
    prepared = runs.prepare(
        case.teacher(), student, codes, INPUT_SIZE, resolved, normalization=normalization, seed=seed
    )
    if row.halved:
        tried_priors.halve(prepared.method.synthesizer, INPUT_SIZE)
    return prepared


@functools.cache
def load_teacher() -> nn.Module:
    """Train the LeNet-5 on 4,000 digits; at the rate that suits a residual network it would die."""
    training, _ = mnist_teacher.load_digits()
    network = mnist_teacher.train_teacher(training, architecture="lenet5", epochs=20, peak_learning_rate=0.02)
    return freeze(network).to(memory_format=torch.channels_last)


def _digits() -> EvaluationSet:
    _, aside = mnist_teacher.load_digits()
    return EvaluationSet(torch.from_numpy(aside.images), torch.from_numpy(aside.labels))


CASES = {
    "digits": Case(
        load_teacher, _digits, mnist_teacher.LABELS, mnist_teacher.MEAN, mnist_teacher.STD, flip=False
    ),
    **{
        name: Case(
            functools.partial(fashion.load_teacher, untrained),
            functools.partial(fashion.load, "t10k"),
            fashion.LABELS,
            fashion.MEAN,
            fashion.STD,
            flip=True,
        )
        for name, untrained in {"fashion": fashion.lenet5, "fashion-vit": fashion.vision_transformer}.items()
    },
}


if __name__ == "__main__":
    main()
