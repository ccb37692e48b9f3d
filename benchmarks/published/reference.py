"""The run that this project's speed is held against, by the authors' procedure, on CIFAR-10."""

import tempfile
from pathlib import Path

import torch

from benchmarks import cifar10
from benchmarks.bench import REFERENCE_RUN
from benchmarks.cifar10 import CifarTeacher
from benchmarks.published.procedure import Procedure, ProcedureOutcome, ProcedureSettings
from nayer_core.measuring.evaluation import share_equal
from nayer_core.networks.registry import build

CONFIG = REFERENCE_RUN
EVALUATION_BATCH = 250


def run(teacher: CifarTeacher, seed: int, max_seconds: float) -> ProcedureOutcome:
    """Run it with the authors' label vectors, printing a line an epoch.

    Args:
        teacher: whom to learn from; thawed, in PyTorch's default memory format, as theirs was.
        seed: of torch's global generator, as theirs was.
        max_seconds: give up after these.
    """
    torch.manual_seed(seed)
    network = teacher.load().requires_grad_(True).to(memory_format=torch.contiguous_format)
    student = build(cifar10.STUDENT, num_classes=10, input_size=cifar10.SIZE).to(cifar10.device())
    images = cifar10.load_images()
    inputs = images.images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (teacher.mean, teacher.std))
    inputs = (inputs - mean) / std

    @torch.no_grad()
    def accuracy() -> float:
        student.eval()
        logits = [student(batch.to(cifar10.device())) for batch in inputs.split(EVALUATION_BATCH)]
        return share_equal(torch.cat(logits).argmax(1).cpu(), images.labels)

    with tempfile.TemporaryDirectory(prefix="nayer-published-") as folder:
        procedure = Procedure(
            network,
            student,
            cifar10.label_codes("clip").to(cifar10.device()),
            teacher.mean,
            teacher.std,
            cifar10.SIZE[1],
            ProcedureSettings(**CONFIG),
            Path(folder),
        )
        return procedure.run(accuracy, lambda line: print(line, flush=True), max_seconds)
