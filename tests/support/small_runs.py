"""Runs of Algorithm 1 on networks so small that a whole one takes a fraction of a second."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import Event
from nayer_core.contract.normalization import Normalization
from nayer_core.contract.spec import ResolvedSpec, TextEncoderSpec
from nayer_core.hardware.machine import Machine
from nayer_core.hardware.peers import SINGLE_PROCESS, Peers
from nayer_core.hardware.precision import choose_arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.methods.nayer.algorithm import Nayer
from nayer_core.methods.nayer.synthesis import Round
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze, save_weights
from nayer_core.running.method import Distillands, result_of
from nayer_core.running.run import Run
from nayer_core.tasks.classification import Classification

CPU = torch.device("cpu")
SIZE = (1, 12, 12)
LABELS = ("circle", "square", "star", "heart")
CONFIG = DistillConfig(
    epochs=2,
    warmup_epochs=1,
    rounds_per_epoch=2,
    warmup_rounds_per_epoch=2,
    generator_steps=2,
    student_steps=4,
    synthesis_batch_size=10,
    student_batch_size=12,
    generator="table8",
    generator_width=8,
    noise_dim=16,
    generator_reset_every=2,
    cutmix=0.5,
    student_averaging=0.5,
    precision="fp32",
)


class SmallRun:
    """A run on a teacher of random weights, with its events."""

    def __init__(
        self,
        config: DistillConfig = CONFIG,
        seed: int = 0,
        teacher: str = "wrn_10_1",
        peers: Peers = SINGLE_PROCESS,
        device: torch.device = CPU,
    ):
        torch.manual_seed(100)
        network = build(teacher, num_classes=4, input_size=SIZE)
        network(torch.randn(64, *SIZE))  # gives BatchNorm statistics that are its own
        torch.manual_seed(seed)
        self.student = build("wrn_10_1", num_classes=4, input_size=SIZE)
        self.events: list[Event] = []
        label_embeddings = torch.randn(4, 20, generator=torch.Generator().manual_seed(5))
        mean, std = torch.tensor([0.5], device=device), torch.tensor([0.25], device=device)
        augment = Augmentation(mean, std, crop_padding=1, flip=True)
        self.machine = Machine(choose_arithmetic(config.precision, device), seed, peers)
        self.student.to(device)
        teacher_network = freeze(network).to(device)
        self.distillands = Distillands(
            teacher_network, self.student, label_embeddings.to(device), SIZE, augment
        )
        self.method = Nayer(self.distillands, config, Classification(4), self.machine)
        self.run = Run(self.method, config, self.machine, self.events.append)

    def go_on(self, **options: Any) -> bool:
        return self.run.go_on(**options)

    def make_round(self, index: int = 0, student: torch.nn.Module | None = None) -> Round:
        """A round of a new generator; its images are not put into the bank."""
        self.method.synthesizer.redraw_generator()
        return result_of(self.method.synthesizer.run_round(index, student))

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the student in training and of the one a client gets, which are not the same here."""
        return {name: value.clone() for name, value in self.method.trainer.state().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def after(steps: int) -> Callable[[], bool]:
    """Ask to stop once `steps` steps are done."""
    remaining = [steps]

    def should_stop() -> bool:
        remaining[0] -= 1
        return remaining[0] <= 0

    return should_stop


def write_inputs(folder: Path, config: DistillConfig = CONFIG, **overrides: Any) -> Path:
    """Write the inputs of the command `distill` into a folder; `overrides` are fields of the spec."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    teacher = build("wrn_10_1", num_classes=4, input_size=SIZE)
    teacher(torch.randn(64, *SIZE))  # gives BatchNorm statistics that are its own
    save_weights(teacher, folder / "teacher.safetensors")
    save_file({"lte": torch.randn(4, 10)}, folder / "lte.safetensors")
    usual: dict[str, Any] = {"teacher_accuracy": None, "student_architecture": "lenet5", "seed": 3}
    spec = ResolvedSpec(
        labels=LABELS,
        input_size=SIZE,
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        teacher_architecture="wrn_10_1",
        preset="quick",
        config=config,
        text_encoder=TextEncoderSpec(name="file", whiten=True),
        **{**usual, **overrides},
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    return folder


def undisturbed(inputs: Path, out: Path) -> Path:
    """Run the core program alone, as nothing disturbs it; gives the folder that it filled."""
    command = [sys.executable, "-m", "nayer_core", "distill", "--in", str(inputs), "--out", str(out)]
    subprocess.run([*command, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    return out
