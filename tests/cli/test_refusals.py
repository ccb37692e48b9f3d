"""Refusals before anything is sent, and a service that does not answer."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

DOWN = "http://127.0.0.1:9"  # the port of "discard": nobody listens
IMAGES = ["--input-size", "1,8,8", "--mean", "0.5", "--std", "0.5"]


def test_a_service_that_is_down_is_reported_with_a_hint(teacher: Path, labels: Path) -> None:
    arguments = ["submit", str(teacher), "--labels", str(labels), "--student", "wrn_10_1", "--url", DOWN]
    result = CliRunner().invoke(app, [*arguments, *IMAGES, "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "service_unreachable"
    assert "nayer serve" in result.stderr


def test_the_version_needs_no_service() -> None:
    result = CliRunner().invoke(app, ["version", "--url", DOWN])
    assert result.exit_code == 0
    assert "no service" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--mean", "a,b"], "option_invalid", "a,b"),
        (["--set", "epochs"], "option_invalid", "key=value"),
        (["--metadata", "=1"], "option_invalid", "key=value"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(
    teacher: Path, labels: Path, options: list[str], code: str, reason: str
) -> None:
    arguments = ["submit", str(teacher), "--labels", str(labels), "--student", "wrn_10_1", "--url", DOWN]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 2
    assert code in result.stderr
    assert reason in result.stderr


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'["cat", 3]', b'["cat", '])
def test_labels_that_cannot_be_read_are_refused(teacher: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    result = CliRunner().invoke(
        app, ["submit", str(teacher), "--labels", str(path), "--student", "wrn_10_1", "--url", DOWN]
    )
    assert result.exit_code == 2
    assert "labels_unreadable" in result.stderr


@pytest.mark.parametrize("command", ["submit", "validate"])
def test_one_message_names_all_missing_options(command: str, teacher: Path) -> None:
    result = CliRunner().invoke(app, [command, str(teacher), "--url", DOWN])
    assert result.exit_code == 2
    assert "lacks --labels, --student, --input-size, --mean and --std." in result.stderr
    for option in ("--labels FILE", "--student NAME", "--input-size C,H,W", "--mean M,M,M", "--std S,S,S"):
        assert f"\n{option}: " in result.stderr, option
    assert "service_unreachable" not in result.stderr, "nothing is sent before"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--labels", "lacks --labels."),
        ("--student", "lacks --student."),
        ("--input-size", "lacks --input-size."),
        ("--mean", "lacks --mean."),
    ],
)
def test_a_single_missing_option_is_named(option: str, reason: str, teacher: Path, labels: Path) -> None:
    arguments = ["--labels", str(labels), "--student", "wrn_10_1", *IMAGES]
    place = arguments.index(option)
    del arguments[place : place + 2]
    result = CliRunner().invoke(app, ["submit", str(teacher), *arguments, "--url", DOWN])
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stderr.count("\n--") == 1


def test_an_unusual_form_of_labels_is_reported(teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("{0: 'tench, Tinca tinca',\n 1: 'goldfish'}")
    arguments = ["submit", str(teacher), "--labels", str(path), "--student", "wrn_10_1", *IMAGES]
    result = CliRunner().invoke(app, [*arguments, "--url", DOWN])
    assert "2 labels read from an object of Python: 'tench, Tinca tinca' to 'goldfish'" in result.stderr


def test_a_port_in_use_is_reported_before_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--port", port, "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "port_taken" in result.stderr
    assert port in result.stderr
    assert not (tmp_path / "data" / "postgres").exists()
