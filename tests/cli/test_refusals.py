"""What is refused before anything is sent, and a service that is not there."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

DOWN = "http://127.0.0.1:9"  # the port of "discard": nobody listens


def test_a_service_that_is_down_is_told_with_what_to_do(teacher: Path, labels: Path) -> None:
    arguments = ["submit", str(teacher), "--labels", str(labels), "--student", "wrn_10_1", "--url", DOWN]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "service_unreachable"
    assert "nayer serve" in result.stderr


def test_the_version_needs_no_service() -> None:
    result = CliRunner().invoke(app, ["version", "--url", DOWN])
    assert result.exit_code == 0
    assert "no service" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--mean", "a,b"], "option_invalid", "a,b"),
        (["--set", "epochs"], "option_invalid", "key=value"),
        (["--metadata", "=1"], "option_invalid", "key=value"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(
    teacher: Path, labels: Path, options: list[str], code: str, said: str
) -> None:
    arguments = ["submit", str(teacher), "--labels", str(labels), "--student", "wrn_10_1", "--url", DOWN]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 2
    assert code in result.stderr
    assert said in result.stderr


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'["cat", 3]', b'["cat", '])
def test_labels_that_cannot_be_read_are_refused(teacher: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    result = CliRunner().invoke(
        app, ["submit", str(teacher), "--labels", str(path), "--student", "wrn_10_1", "--url", DOWN]
    )
    assert result.exit_code == 2
    assert "labels_unreadable" in result.stderr


def test_a_request_without_labels_or_student_is_incomplete(teacher: Path, labels: Path) -> None:
    without_labels = CliRunner().invoke(app, ["submit", str(teacher), "--student", "wrn_10_1", "--url", DOWN])
    without_student = CliRunner().invoke(
        app, ["submit", str(teacher), "--labels", str(labels), "--url", DOWN]
    )
    for result, missing in ((without_labels, "labels"), (without_student, "student")):
        assert result.exit_code == 2
        assert f"lacks the {missing}" in result.stderr


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--port", port, "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "port_taken" in result.stderr
    assert port in result.stderr
    assert not (tmp_path / "data" / "postgres").exists()
