"""From the command line to a student, over a real service."""

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner, Result

from cli.main import app
from tests.support.serving import Serving, wait_until

SETTINGS = [
    "warmup_epochs=1",
    "warmup_rounds_per_epoch=1",
    "rounds_per_epoch=1",
    "generator_steps=1",
    "flip=false",
]
SETTINGS += [
    "synthesis_batch_size=4",
    "student_batch_size=4",
    "student_steps=1",
    "generator_width=4",
    "noise_dim=8",
]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def request(
    teacher: Path, labels: Path, url: str, *, epochs: int = 1, student: str = "wrn_10_1"
) -> list[str]:
    """Arguments of `submit` and `validate` for a job of seconds."""
    arguments = [str(teacher), "--labels", str(labels), "--student", student, "--url", url]
    arguments += ["--input-size", "1,8,8", "--mean", "0.5", "--std", "0.5", "--text-encoder", "one_hot"]
    arguments += ["--preset", "quick"]
    for setting in (*SETTINGS, f"epochs={epochs}"):
        arguments += ["--set", setting]
    return arguments


def status_of(serving: Serving, job_id: str) -> str:
    entries = json.loads(invoke("list", "--json", "--url", serving.url).stdout)["data"]
    return next(str(job["status"]) for job in entries if job["id"] == job_id)


@pytest.fixture(scope="module")
def done(serving: Serving, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of `submit --json` for a job that succeeded."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "labels.json").write_text('["cat", "dog", "bird"]')
    arguments = request(teacher, folder / "labels.json", serving.url)
    result = invoke("submit", *arguments, "-o", folder / "out" / "student.safetensors", "--json")
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_the_student_is_fetched_and_is_what_the_service_announced(done: dict[str, Any]) -> None:
    path = Path(done["path"])
    assert done["job"]["status"] == "succeeded"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == done["sha256"]
    assert load_file(path)["fc.weight"].shape == (3, 64)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no part of a download


def test_a_finished_job_can_be_watched_and_fetched_again(
    done: dict[str, Any], serving: Serving, tmp_path: Path
) -> None:
    job_id = done["job"]["id"]
    watch = invoke("watch", job_id, "--json", "--url", serving.url)
    assert (watch.exit_code, json.loads(watch.stdout)["status"]) == (0, "succeeded")
    assert "distill" in watch.stderr
    card = tmp_path / "card.json"
    assert invoke("download", job_id, "model_card.json", "-o", card, "--url", serving.url).exit_code == 0
    assert json.loads(card.read_text())
    missing = invoke("download", job_id, "nothing.bin", "--url", serving.url)
    assert missing.exit_code == 2
    assert "student.safetensors" in missing.stderr  # the message names the artifacts that exist


def test_a_job_that_fails_exits_1_with_its_code_and_hint(
    serving: Serving, teacher: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two.txt"
    two.write_text("cat\ndog\n")
    student = tmp_path / "student.safetensors"
    result = invoke("submit", *request(teacher, two, serving.url), "-o", student, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["job"]["error"]
    assert error["code"] == "class_count_mismatch"
    assert error["code"] in result.stderr
    assert error["hint"].split()[0] in result.stderr
    assert not student.exists()


def test_validate_prints_the_report_and_distils_nothing(
    serving: Serving, teacher: Path, labels: Path
) -> None:
    result = invoke("validate", *request(teacher, labels, serving.url))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["architecture"] == "wrn_10_1"


def test_the_line_of_a_refusal_corrects_the_teacher(
    serving: Serving, teacher: Path, labels: Path, tmp_path: Path
) -> None:
    state = torch.load(teacher)
    checkpoint = tmp_path / "my teacher.pt"
    name = [name for name in state if name.endswith(".bias")][-1]
    state[name] = state[name].to(torch.int8)
    torch.save({"net": state}, checkpoint)
    refusal = invoke("validate", *request(checkpoint, labels, serving.url))
    assert refusal.exit_code == 1
    (line,) = (line for line in refusal.stderr.splitlines() if "import torch" in line)
    line = line[line.index("import torch") :]
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True)
    report = invoke("validate", *request(tmp_path / "new_teacher.pt", labels, serving.url))
    assert report.exit_code == 0, report.stderr
    assert json.loads(report.stdout)["architecture"] == "wrn_10_1"


def test_a_detached_job_runs_until_it_is_cancelled(serving: Serving, teacher: Path, labels: Path) -> None:
    submission = invoke("submit", *request(teacher, labels, serving.url, epochs=50_000), "--detach", "--json")
    assert submission.exit_code == 0, submission.stderr
    job_id = json.loads(submission.stdout)["id"]
    wait_until(lambda: status_of(serving, job_id) == "running", 120, "the job runs")
    command = [sys.executable, "-m", "cli.main", "watch", job_id, "--url", serving.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as watching:
        assert watching.stderr is not None
        wait_until(lambda: "running" in watching.stderr.readline(), 60, "the watcher sees it")  # type: ignore[union-attr]
        watching.send_signal(signal.SIGINT)
        messages = watching.stderr.read()
    assert watching.returncode == 130
    assert f"nayer cancel {job_id}" in messages
    assert status_of(serving, job_id) == "running"
    assert invoke("cancel", job_id, "--url", serving.url).exit_code == 0
    watch = invoke("watch", job_id, "--json", "--url", serving.url)
    assert (watch.exit_code, json.loads(watch.stdout)["status"]) == (1, "cancelled")


def test_the_same_idempotency_key_is_the_same_job(serving: Serving, teacher: Path, labels: Path) -> None:
    arguments = [*request(teacher, labels, serving.url), "--idempotency-key", "mine", "--detach"]
    first, second = invoke("submit", *arguments), invoke("submit", *arguments)
    assert first.stdout == second.stdout
    assert first.exit_code == second.exit_code == 0


def test_an_unknown_student_is_refused_with_the_nearest_name(
    serving: Serving, teacher: Path, labels: Path
) -> None:
    result = invoke("submit", *request(teacher, labels, serving.url, student="wrn_16_l"), "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["message"].startswith(
        "--student: there is no architecture named 'wrn_16_l'; the nearest are"
    )
    assert "wrn_16_1" in error["message"]
    assert "`nayer architectures wrn`" in error["hint"]
    assert result.stderr.count("there is no architecture") == 1


def test_faults_of_a_request_name_options(serving: Serving, teacher: Path, labels: Path) -> None:
    arguments = request(teacher, labels, serving.url)
    arguments[arguments.index("1,8,8")] = "1,4,4"
    result = invoke("validate", *arguments, "--architecture", "resnet21")
    assert result.exit_code == 2
    for option in ("--input-size: ", "--architecture: "):
        assert option in result.stderr
    assert "/teacher" not in result.stderr
    epochs = invoke("validate", *request(teacher, labels, serving.url, epochs=0))
    assert epochs.exit_code == 2
    assert "--set epochs=...: " in epochs.stderr


def test_an_unknown_job_is_refused(serving: Serving) -> None:
    for command in ("watch", "cancel", "download"):
        result = invoke(command, "no-such-job", "--url", serving.url)
        assert result.exit_code == 2
        assert "job_not_found" in result.stderr


def test_architectures_are_searched_by_a_part_of_their_name(serving: Serving) -> None:
    listing = invoke("architectures", "mobilenetv3", "--json", "--url", serving.url)
    entries = json.loads(listing.stdout)["data"]
    assert len(entries) > 2
    assert all("mobilenetv3" in entry["name"] for entry in entries)
    few = invoke("architectures", "mobilenetv3", "--limit", "2", "--url", serving.url)
    assert len(few.stdout.splitlines()) == 3, "a heading and two rows"
    assert f"2 of {len(entries)}. More: --limit {len(entries)}" in few.stderr
    none = invoke("architectures", "nosuchnet", "--url", serving.url)
    assert (none.exit_code, none.stdout) == (0, "")
    assert "No architecture holds 'nosuchnet'" in none.stderr


def test_a_terminal_shows_at_most_30_architectures(serving: Serving) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cli.main", "architectures", "--url", serving.url]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True) as listing:
        os.close(theirs)
        output = b""
        while chunk := _read_chunk(ours):
            output += chunk
        assert listing.stderr is not None
        messages = listing.stderr.read()
    os.close(ours)
    assert listing.returncode == 0
    assert b"wrn_16_1" in output
    assert b"timm/vit_base_patch16_224" not in output
    assert "30 of 1" in messages
    assert "nayer architectures mobilenet" in messages
    assert "timm/vit_base_patch16_224" in invoke("architectures", "--url", serving.url).stdout


def _read_chunk(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed, on Linux
        return b""


def test_the_catalog_and_the_version_are_shown(serving: Serving) -> None:
    names = [
        entry["name"]
        for entry in json.loads(invoke("architectures", "--json", "--url", serving.url).stdout)["data"]
    ]
    assert "wrn_16_1" in names
    assert "paper-cifar10" in invoke("presets", "--url", serving.url).stdout
    version = json.loads(invoke("version", "--json", "--url", serving.url).stdout)
    assert version["service"]["version"] == version["version"]
