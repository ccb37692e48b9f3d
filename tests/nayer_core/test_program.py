"""The program's contract: JSON lines on stdout, people's messages on stderr, exit codes."""

import io
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from nayer_core import __main__ as program
from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.contract.events import FailedEvent, FinishedEvent, StoppedEvent, parse_event
from nayer_core.networks.registry import build
from tests.support.hostile_cases import CASES
from tests.support.hostile_files import CANARY

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def spec(tmp_path):
    document = {
        "labels": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        "teacher": {
            "architecture": "resnet20",
            "input_size": [3, 32, 32],
            "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        },
        "student": {"architecture": "lenet5"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(document))
    return tmp_path / "spec.json"


def run(*words):
    """Run the program as its callers do; returns (exit code, events, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "nayer_core", *map(str, words)],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    return done.returncode, [parse_event(line) for line in done.stdout.splitlines()], done.stderr.decode()


def test_inspect_ends_with_its_result(spec, tmp_path):
    torch.save(build("resnet20", num_classes=10, input_size=(3, 32, 32)).state_dict(), tmp_path / "t.pt")
    code, events, stderr = run(
        "inspect", "--teacher", tmp_path / "t.pt", "--spec", spec, "--out", tmp_path / "out"
    )
    assert code == 0, stderr
    assert isinstance(events[-1], FinishedEvent)
    assert events[-1].result == json.loads((tmp_path / "out" / "report.json").read_text())


@pytest.mark.parametrize("case", ["deep tuple as a key"])
def test_a_hostile_teacher_ends_the_program_with_a_reason(case, spec, tmp_path):
    build_file, expected = CASES[case]
    (tmp_path / "t.pt").write_bytes(build_file())
    code, events, stderr = run(
        "inspect", "--teacher", tmp_path / "t.pt", "--spec", spec, "--out", tmp_path / "out"
    )
    assert code == 2
    assert isinstance(events[-1], FailedEvent)
    assert (events[-1].code, events[-1].retryable) == (expected, False)
    assert events[-1].message in stderr
    assert "weights_only" not in stderr
    assert "Traceback" not in stderr
    assert not CANARY.exists()


@pytest.mark.parametrize("name", ["cifar10_resnet20.pt", "cifar10_resnet20_legacy.th"])
def test_a_published_teacher_is_recognised_by_the_program(name, spec, tmp_path):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not on this machine")
    document = json.loads(spec.read_text())
    document["teacher"]["architecture"] = "auto"
    spec.write_text(json.dumps(document))
    code, events, stderr = run("inspect", "--teacher", DATA / name, "--spec", spec, "--out", tmp_path / "out")
    assert code == 0, stderr
    assert events[-1].result["architecture"] == "resnet20"


@pytest.fixture
def command(monkeypatch):
    """Put a function in the place of a command; returns (exit code, events, stdout)."""

    def install(function, argv=("embed", "--spec", str(ROOT / "pyproject.toml"), "--out", "x")):
        stand_in = types.ModuleType("stand_in")
        stand_in.run = function
        monkeypatch.setitem(sys.modules, "stand_in", stand_in)
        monkeypatch.setitem(program.COMMAND_MODULES, argv[0], "stand_in")
        out = io.StringIO()
        code = program.main(argv, out)
        return code, [parse_event(line) for line in out.getvalue().splitlines()]

    return install


def test_a_refusal_is_the_last_line_and_exit_code_2(command, capsys):
    def refuse(args, emit):
        raise TeacherError(ErrorCode.TRUNCATED_FILE, "It is cut.", "Upload it again.", retryable=True)

    code, events = command(refuse)
    assert code == 2
    assert events == [
        FailedEvent(
            time=events[-1].time,
            code=ErrorCode.TRUNCATED_FILE,
            message="It is cut.",
            hint="Upload it again.",
            retryable=True,
        )
    ]
    assert "It is cut. Upload it again." in capsys.readouterr().err


def test_a_bug_is_a_traceback_and_exit_code_1(command, capsys):
    def stumble(args, emit):
        raise ZeroDivisionError("ours")

    assert command(stumble) == (1, [])
    assert "ZeroDivisionError: ours" in capsys.readouterr().err


def test_a_stopped_command_says_so_itself_with_exit_code_3(command):
    def stop(args, emit):
        emit(StoppedEvent(reason="SIGTERM"))
        return 3

    code, events = command(stop)
    assert code == 3
    assert [event.event for event in events] == ["stopped"]


@pytest.mark.parametrize(
    "argv",
    [
        ["inspect"],
        ["inspekt"],
        ["embed", "--spec", "/no/such/file", "--out", "x"],
        ["distill", "--teacher", str(ROOT / "pyproject.toml"), "--out", "x"],
        ["export", "--network", str(ROOT / "pyproject.toml"), "--format", "gguf", "--out", "x"],
    ],
)
def test_a_command_line_that_cannot_work_is_a_refusal_too(argv):
    out = io.StringIO()
    assert program.main(argv, out) == 2
    (line,) = out.getvalue().splitlines()
    assert parse_event(line).code == ErrorCode.INVALID_COMMAND


def test_whatever_a_library_prints_goes_to_stderr():
    script = (
        "import os, sys, types, runpy\n"
        "module = types.ModuleType('stand_in')\n"
        "def run(args, emit):\n"
        "    print('printed'); os.write(1, b'written\\n'); os.system('echo from a child')\n"
        "    return {}\n"
        "module.run = run\n"
        "sys.modules['stand_in'] = module\n"
        "from nayer_core import __main__ as program\n"
        "program.COMMAND_MODULES['embed'] = 'stand_in'\n"
        "out = program._claim_stdout()\n"
        "sys.exit(program.main(['embed', '--spec', 'pyproject.toml', '--out', 'x'], out))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert parse_event(line).result == {}
    for text in (b"printed", b"written", b"from a child"):
        assert text in done.stderr
