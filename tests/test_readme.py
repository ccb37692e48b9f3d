"""The commands of the README are run unchanged, against a service that is started as it says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nayer_core.contract.normalization import Normalization
from nayer_core.networks.network_file import Description
from nayer_core.networks.registry import build

ROOT = Path(__file__).parents[1]
# A run of seconds; the steps are the same.
TINY = {
    **{"epochs": 1, "warmup_epochs": 1, "warmup_rounds_per_epoch": 1, "generator_steps": 2},
    **{"student_steps": 2, "synthesis_batch_size": 20, "student_batch_size": 20, "generator_width": 8},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """`nayer serve` on a free port, with a data folder of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAYER_")}
    environment |= {"OMP_NUM_THREADS": "1", "NAYER_DEVICE": "cpu"}
    folder = tmp_path_factory.mktemp("service")
    command = [sys.executable, "-m", "cli.main", "serve", "--json", "--port", "0", "--data-dir", str(folder)]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def block(language: str, holds: str) -> str:
    """The block of the README that is marked to be run, in this language and with these words."""
    blocks = re.findall(
        rf"^( *)<!-- tests/test_readme.py runs this block -->\n *```{language}\n(.*?)^ *```",
        (ROOT / "README.md").read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )
    (match,) = (textwrap.dedent(text) for _, text in blocks if holds in text)
    return str(match)


def save_student(architecture: str, folder: Path) -> None:
    """Write `student.safetensors` as a job does, for two classes."""
    size = (3, 32, 32)
    normalization = Normalization(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    labels = ("cat", "dog")
    description = Description(
        architecture=architecture, labels=labels, input_size=size, normalization=normalization
    )
    torch.manual_seed(0)
    network = build(architecture, num_classes=2, input_size=size)
    description.save(network, folder / "student.safetensors")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the walk uses curl, which is not on this machine")
def test_the_walk_with_curl_gives_a_verified_student(service: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("resnet20", num_classes=10, input_size=(3, 32, 32))
    torch.save(network.state_dict(), tmp_path / "my teacher.pt")
    environment = {
        "PATH": os.environ["PATH"],
        "NAYER_URL": service["url"],
        "TEACHER": "my teacher.pt",
        "CONFIG": json.dumps(TINY),
    }
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", block("sh", "curl")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "student.safetensors: OK" in done.stdout
    assert '"status":"succeeded"' in done.stdout.replace(" ", "")
    with safe_open(tmp_path / "student.safetensors", "pt") as student:
        assert json.loads(student.metadata()["network"])["architecture"] == "wrn_16_1"


def test_a_student_of_timm_loads_in_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_student("timm/mobilenetv3_small_050", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python", "timm"), names)  # noqa: S102 - what the README tells people to run
    with torch.no_grad():
        logits = names["network"](torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 2)


def test_a_student_is_exported_with_its_normalisation_inside(tmp_path: Path) -> None:
    save_student("wrn_16_1", tmp_path)
    command = block("sh", "export").replace("python ", f"{sys.executable} ", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-eu", "-c", command], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (logits,) = session.run(None, {"images": image.numpy()})
    student = build("wrn_16_1", num_classes=2, input_size=(3, 32, 32)).eval()
    student.load_state_dict(load_file(tmp_path / "student.safetensors"))
    with torch.no_grad():
        expected = student((image - 0.5) / 0.25)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


def test_the_commands_that_are_named_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", text)) <= targets
    help_text = subprocess.run(
        [sys.executable, "-m", "cli.main", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"`?nayer ([a-z]+) ?[`t]", text)):
        assert command in help_text


def test_the_options_of_submit_exist() -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"nayer submit (.*?)```", text, flags=re.DOTALL)
    assert block is not None
    help_text = subprocess.run(
        [sys.executable, "-m", "cli.main", "submit", "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = set(re.findall(r"(--[a-z-]+)", block[1]))
    assert used
    assert {option for option in used if option not in help_text} == set()
