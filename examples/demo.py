"""Distil an MNIST teacher into a fifth of its size through the service, without one digit.

    make demo        (python -m examples.demo)

Starts `nayer serve` on a free port, trains a teacher here (a client's business), sends it with its
class names, follows the job, fetches the student, and measures both on 1,000 digits kept aside.
Writes demo_output/. The last line on stdout is one JSON object.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from cli.display import JobDisplay, transfer
from cli.local.server_process import die_with_parent
from examples.curves import plot_curves
from examples.mnist_teacher import (
    INPUT_SIZE,
    LABELS,
    MEAN,
    STD,
    Digits,
    accuracy,
    load_digits,
    train_teacher,
)
from nayer import Client, ClientError, RemoteEvent, RemoteJob, follow
from nayer_core.networks.registry import build, count_parameters

STUDENT = "wrn_10_1"
# One to two minutes on two cores. Digits are small and must not be mirrored; the rest was measured
# (benchmarks/results/mnist_demo.md).
CONFIG: dict[str, Any] = {
    "flip": False,
    "crop_padding": 2,
    "student_steps": 30,
    "student_batch_size": 128,
    "generator_width": 32,
    "noise_dim": 256,
    "generator_lr": 0.01,
    "student_lr": 0.1,
}
OUTPUT = Path("demo_output")
# The demo starts its own service, whatever the environment says about another.
FOREIGN = ("NAYER_DATABASE_URL", "NAYER_REDIS_URL", "NAYER_STORAGE_URL", "NAYER_API_KEY", "NAYER_DATA_DIR")

console = Console(stderr=True, soft_wrap=True, highlight=False)


def main() -> int:
    """Run the demo; 0 when the job succeeded."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service is stopped
    start = time.monotonic()
    torch.set_num_threads(1)  # its threads wait for each other in busy loops, and the service needs a core
    OUTPUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nayer-demo-") as folder, _service(Path(folder)) as service:
        training, aside = load_digits()
        console.print("training the teacher on 4,000 digits")
        teacher = train_teacher(
            training, report=lambda epoch, loss: console.print(f"epoch {epoch}  loss {loss:.4f}")
        )
        torch.save(teacher.state_dict(), OUTPUT / "teacher.pt")
        teacher_accuracy = accuracy(teacher, aside)
        console.print(f"teacher: {teacher_accuracy:.2%} of 1,000 digits kept aside")
        with Client(service.address()) as client:
            run = _distill(client, OUTPUT / "teacher.pt")
            summary: dict[str, Any] = {
                "job_id": run.job.id,
                "status": run.job.status,
                "teacher_accuracy": round(teacher_accuracy, 4),
                "teacher_parameters": count_parameters(teacher),
            }
            if run.job.succeeded:
                summary |= _fetch_and_measure(client, run, aside)
    summary["total_seconds"] = round(time.monotonic() - start, 1)
    print(json.dumps(summary))
    return 0 if run.job.succeeded else 1


@dataclass
class _DemoJob:
    """A job and when its distillation began and ended."""

    job: RemoteJob
    moments: list[datetime] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.moments[-1] - self.moments[0]).total_seconds()


def _distill(client: Client, teacher: Path) -> _DemoJob:
    spec = {
        "labels": LABELS,
        "teacher": {"input_size": INPUT_SIZE, "normalization": {"mean": [MEAN], "std": [STD]}},
        "student": {"architecture": STUDENT},
        "preset": "quick",
        "config": CONFIG,
    }
    with transfer(console, "upload") as on_bytes:
        run = _DemoJob(client.submit(teacher, spec, on_bytes=on_bytes))
    with JobDisplay(console) as display:

        def on_event(event: RemoteEvent) -> None:
            display.event(event)
            if event.type == "status" and event.data["status"] not in ("validating", "queued"):
                run.moments.append(event.created_at)

        run.job = follow(client, run.job.id, on_event, display.trouble)
    if run.job.error:
        console.print(f"[red]{run.job.error['code']}[/]: {run.job.error['message']} {run.job.error['hint']}")
    return run


def _fetch_and_measure(client: Client, run: _DemoJob, aside: Digits) -> dict[str, Any]:
    path = OUTPUT / "student.safetensors"
    for name in (path.name, "model_card.json", "samples.png"):
        sha256 = client.download(run.job.id, name, OUTPUT / name)
        console.print(f"{OUTPUT / name}  sha256 {sha256} verified")
    plot_curves(client.metrics(run.job.id), OUTPUT / "curves.png")
    student = build(STUDENT, num_classes=len(LABELS), input_size=INPUT_SIZE).eval()
    student.load_state_dict(load_file(path))
    return {
        "student_accuracy": round(accuracy(student, aside), 4),
        "student_parameters": count_parameters(student),
        "distill_seconds": round(run.seconds, 1),
        "student_path": str(path),
    }


class _DemoService:
    """The demo's own service, which starts while the teacher is trained."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process

    def address(self) -> str:
        """Wait until it answers, and return its address.

        Raises:
            ClientError: it did not start; its messages are on stderr.
        """
        assert self._process.stdout is not None  # noqa: S101 - a pipe, requested below
        line = self._process.stdout.readline()
        ready = json.loads(line) if line else {}
        if "url" not in ready:
            raise ClientError("service_not_started", "`nayer serve` ended before it answered.")
        return str(ready["url"])


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[_DemoService]:
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    folder.chmod(0o755)  # PostgreSQL runs as another user where this one is root
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--data-dir", str(folder), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this program, which then stops it in order
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield _DemoService(process)
    finally:
        process.terminate()
        process.wait()
        shutil.copytree(folder / "logs", OUTPUT / "logs", dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
