"""The whole service on one machine: restarts, data that survive, and no process left behind."""

import json
import signal
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from cli.main import app
from nayer import Client
from tests.support.serving import Serving, serve_command, serve_environment, start_serving, wait_until

SPEC = {
    "labels": ["cat", "dog", "bird"],
    "teacher": {"input_size": [1, 8, 8], "normalization": {"mean": [0.5], "std": [0.5]}},
    "student": {"architecture": "wrn_10_1"},
    "text_encoder": {"name": "one_hot"},
}


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_a_second_service_on_the_same_data_is_refused(serving: Serving) -> None:
    second = subprocess.run(
        serve_command(serving.data_dir), env=serve_environment(), capture_output=True, text=True, check=False
    )
    assert second.returncode == 2
    error = json.loads(second.stdout)["error"]
    assert error["code"] == "already_running"
    assert serving.url in error["message"]
    assert answers(serving.url)


@pytest.mark.parametrize("name", ["api", "postgres", "valkey", "distill", "inspect", "upkeep"])
def test_a_killed_part_is_started_again(serving: Serving, name: str) -> None:
    old_pid = serving.children()[name].pid
    psutil.Process(old_pid).kill()

    def is_back() -> bool:
        child = serving.children().get(name)
        return child is not None and child.pid != old_pid

    wait_until(is_back, 60, f"{name} is started again")
    wait_until(lambda: answers(serving.url), 60, "the service is ready again")
    with Client(serving.url) as client:
        assert client.jobs() == []


def test_jobs_survive_a_restart_and_no_process_survives_the_service(tmp_path: Path, teacher: Path) -> None:
    first = start_serving(tmp_path / "data")
    assert json.loads((first.data_dir / "service.json").read_text())["url"] == first.url
    with Client(first.url) as client:
        job = client.submit(teacher, SPEC, dry_run=True)
    processes = first.everything()
    assert first.stop() == 0
    assert not psutil.wait_procs(processes, timeout=5)[1]
    assert not (first.data_dir / "service.json").exists()

    second = start_serving(tmp_path / "data")
    with Client(second.url) as client:
        assert [entry.id for entry in client.jobs()] == [job.id]
    processes = second.everything()
    second.stop(signal.SIGKILL)  # the same where it has no time to stop its children
    assert not psutil.wait_procs(processes, timeout=30)[1]


def test_a_wrong_setting_is_named_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAYER_DRAIN_SECONDS", "soon")
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "NAYER_DRAIN_SECONDS" in result.stderr


EVERYWHERE = "0.0.0.0"  # noqa: S104 - the address that must be refused


def test_a_public_address_without_a_key_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NAYER_API_KEY", raising=False)
    command = ["serve", "--host", EVERYWHERE, "--port", "0", "--data-dir", str(tmp_path / "data"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "api_key_missing"
    assert "--insecure" in error["hint"]
    assert not (tmp_path / "data" / "postgres").exists()


def test_insecure_serves_a_public_address_without_a_key(tmp_path: Path) -> None:
    serving = start_serving(tmp_path / "data", "--host", EVERYWHERE, "--insecure")
    assert httpx.get(f"{serving.url}/jobs").status_code == 200
    assert serving.stop() == 0
