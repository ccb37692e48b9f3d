"""A real distillation of ten to twenty seconds on a CPU, whose student is known bit by bit."""

import subprocess
import sys
import uuid
from pathlib import Path

import torch
from safetensors.torch import save_file

from jobs.records import NewJob
from jobs.service import JobService
from jobs.storage import Storage
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.spec import Normalization, ResolvedSpec, TextEncoderSpec
from nayer_core.networks.registry import build
from nayer_core.weights import save_weights
from tests.support.jobs import a_spec

SIZE = (1, 12, 12)
CONFIG = DistillConfig(
    epochs=10,
    warmup_epochs=1,
    rounds_per_epoch=2,
    warmup_rounds_per_epoch=2,
    generator_steps=3,
    student_steps=40,
    synthesis_batch_size=12,
    student_batch_size=16,
    generator="table8",
    generator_width=8,
    noise_dim=16,
    precision="fp32",
)


def canonical_files(folder: Path) -> Path:
    """Write the files that `inspect` and `embed` would leave."""
    torch.manual_seed(0)
    teacher = build("wrn_10_1", num_classes=3, input_size=SIZE)
    teacher(torch.randn(64, *SIZE))  # gives BatchNorm statistics that are its own
    save_weights(teacher, folder / "teacher.safetensors")
    save_file({"lte": torch.randn(3, 10)}, folder / "lte.safetensors")
    spec = ResolvedSpec(
        labels=("circle", "square", "star"),
        input_size=SIZE,
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        teacher_architecture="wrn_10_1",
        teacher_accuracy=None,
        student_architecture="wrn_10_1",
        preset="quick",
        config=CONFIG,
        text_encoder=TextEncoderSpec(name="file", whiten=True),
        seed=3,
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    return folder


def undisturbed_student(canonical: Path, out: Path) -> bytes:
    """Run the core alone, as nothing disturbs it."""
    command = [sys.executable, "-m", "nayer_core", "distill", "--in", str(canonical), "--out", str(out)]
    subprocess.run([*command, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    return (out / "student.safetensors").read_bytes()


def submit_inspected(service: JobService, storage: Storage, canonical: Path) -> str:
    """Create a job that waits for its distillation; no inspector may be at work."""
    teacher = storage.put_stream([b"a teacher"], f"uploads/{uuid.uuid4()}")
    job, _ = service.submit(NewJob(spec=a_spec(), teacher=teacher))
    claim = service.claim("inspect", f"chaos:{job.id}")
    assert claim is not None
    assert claim.job.id == job.id
    inputs = {path.name: storage.publish(path, "inputs") for path in canonical.iterdir()}
    service.validated(claim, {}, {}, inputs)
    return job.id
