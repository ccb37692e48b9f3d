import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from nayer_core.networks.registry import build
from tests.support.services import fresh_database

READY_SECONDS = 60
INPUT_SIZE = (3, 8, 8)
MEAN, STD = 0.3, 0.38  # of the digits, which are repeated over three channels


@dataclass(frozen=True)
class Stack:
    """The whole service, each part a process of its own."""

    http: httpx.Client
    storage: Path
    log: Path

    def submit(self, spec: Mapping[str, Any], **files: bytes) -> dict[str, Any]:
        parts: dict[str, Any] = {name: (f"{name}.bin", body) for name, body in files.items()}
        answer = self.http.post(
            "/jobs", files={"spec": (None, json.dumps(spec), "application/json"), **parts}
        )
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
        return dict(answer.json())

    def follow(self, job_id: str, seconds: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not (job := self.http.get(f"/jobs/{job_id}").json())["is_terminal"]:
            assert time.monotonic() < deadline, f"after {seconds} s: {job}\n{self.log.read_text()[-4000:]}"
            time.sleep(0.2)
        return dict(job)

    def stored_files(self) -> list[Path]:
        return [path for path in self.storage.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(postgres, tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@contextlib.contextmanager
def running_stack(
    postgres: EmbeddedPostgres,
    folder: Path,
    *,
    api: str = "api",
    worker: str = "worker.celery_app",
    **settings: str,
) -> Iterator[Stack]:
    """Start the whole service, with further settings by name."""
    valkey = EmbeddedValkey(folder / "valkey", durable=False)
    valkey.start()
    with contextlib.ExitStack() as undo:
        undo.callback(valkey.stop)
        url = undo.enter_context(fresh_database(postgres))
        log = folder / "stack.log"
        environment = os.environ | {
            "NAYER_DATABASE_URL": url,
            "NAYER_REDIS_URL": valkey.url,
            "NAYER_STORAGE_URL": (folder / "storage").as_uri(),
            "NAYER_DATA_DIR": str(folder),
            "NAYER_SCRATCH_DIR": str(folder / "scratch"),
            "NAYER_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",  # several processes at once on few cores
            "NAYER_UPKEEP_SECONDS": "1",
            "NAYER_WEBHOOK_PRIVATE_ADDRESSES": "true",
            **{f"NAYER_{name.upper()}": value for name, value in settings.items()},
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        celery = ("celery", "-A", worker, "worker", "-P", "threads", "-l", "INFO")
        for command in (
            (api, "--port", str(port)),
            (*celery, "-Q", "inspect", "-c", "2", "-n", "inspect@test"),
            (*celery, "-Q", "distill", "-c", "1", "-n", "distill@test"),
            ("worker.upkeep",),
        ):
            undo.enter_context(_running(command, environment, log))
        http = undo.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        _wait_until_ready(http, log)
        yield Stack(http, folder / "storage", log)


@contextlib.contextmanager
def _running(command: tuple[str, ...], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=out, stderr=out)
    try:
        yield
        process.terminate()
        assert process.wait(30) in (0, -15, 143), f"{command} ended with {process.returncode}"
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(http: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if http.get("/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"the service is not ready:\n{log.read_text()[-4000:]}")


@dataclass(frozen=True)
class Digits:
    """A teacher of scikit-learn's digits, and digits that it has not seen."""

    teacher: nn.Module
    images: Tensor  # (N, 8, 8, 3) uint8
    labels: Tensor
    accuracy: float

    @property
    def spec(self) -> dict[str, Any]:
        return {
            "labels": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            "teacher": {
                "input_size": INPUT_SIZE,
                "normalization": {"mean": [MEAN] * 3, "std": [STD] * 3},
            },
            "student": {"architecture": "wrn_16_1"},
            "preset": "quick",
            "text_encoder": {"name": "one_hot"},
            "config": {
                **{"epochs": 2, "warmup_epochs": 1, "warmup_rounds_per_epoch": 1, "generator_steps": 3},
                **{"student_steps": 6, "synthesis_batch_size": 32, "student_batch_size": 32},
                **{"generator_width": 16, "noise_dim": 32, "crop_padding": 1, "flip": False},
            },
        }

    @property
    def teacher_file(self) -> bytes:
        return save({name: value.contiguous() for name, value in self.teacher.state_dict().items()})


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Train a teacher for a few seconds."""
    pixels, names = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).reshape(-1, 8, 8, 1).mul(255 / 16).round().to(torch.uint8)
    images, labels = images.expand(-1, -1, -1, 3).contiguous(), torch.from_numpy(names)
    torch.manual_seed(0)
    order = torch.randperm(len(images))
    train, test = order[:1400], order[1400:]
    teacher = build("resnet20", num_classes=10, input_size=INPUT_SIZE)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for batch in train[torch.randperm(len(train))].split(100):
            optimizer.zero_grad()
            cross_entropy(teacher(normalize(images[batch])), labels[batch]).backward()
            optimizer.step()
    teacher.eval()
    accuracy = accuracy_of(teacher, images[test], labels[test])
    return Digits(teacher, images[test], labels[test], accuracy)


def normalize(images: Tensor) -> Tensor:
    return (images.permute(0, 3, 1, 2) / 255 - MEAN) / STD


@torch.no_grad()
def accuracy_of(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((network(normalize(images)).argmax(1) == labels).double().mean())


def npz(**arrays: Any) -> bytes:
    import numpy as np

    body = io.BytesIO()
    np.savez(body, **arrays)
    return body.getvalue()
