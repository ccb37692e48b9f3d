import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from nayer_core.uploads import confinement
from nayer_core.uploads.confinement import ParseLimits
from nayer_core.uploads.jail import MAX_ANSWER_BYTES, ParseKilledError, parse_in_jail

LIMITS = ParseLimits(memory_bytes=256 << 20, cpu_seconds=1, output_bytes=1 << 20)


@pytest.fixture
def jailed(tmp_path):
    """Run a function in the jail on a file of 100 bytes."""
    upload = tmp_path / "upload"
    upload.write_bytes(b"u" * 100)

    def run(parse, limits=LIMITS, wall_seconds=10):
        return parse_in_jail(parse, upload, tmp_path / "output", limits, wall_seconds=wall_seconds)

    return run


def outcome(action):
    try:
        return f"did it: {action()!r}"
    except OSError as error:
        is_denied = isinstance(error, PermissionError)
        return "PermissionError" if is_denied else f"OSError: {error.strerror}"
    except RuntimeError as error:
        return str(error)


def test_the_upload_is_read_and_the_output_written(jailed, tmp_path):
    def parse(source, sink):
        sink.write(source.read().upper())
        return {"read": source.tell()}

    assert jailed(parse) == {"read": 100}
    assert (tmp_path / "output").read_bytes() == b"U" * 100
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o600


def test_nothing_else_can_be_reached(jailed, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o666)
    parent = os.getpid()
    actions = {
        "read a file": secret.read_bytes,
        "write a file": lambda: secret.write_text("x"),
        "list a folder": lambda: list(Path("/").iterdir()),
        "read the environment": Path("/proc/self/environ").read_bytes,
        "make a socket": lambda: socket.socket(),
        "make a pair of sockets": lambda: socket.socketpair(),
        "fork": os.fork,
        "run a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - refused
        "start a program": lambda: subprocess.run(["/bin/true"]),
        "signal the parent": lambda: os.kill(parent, 0),
        "start a thread": lambda: threading.Thread(target=int).start(),
        "speak": lambda: os.write(2, b"spoken"),
        "print": lambda: os.write(1, b"printed"),
        "become root": lambda: os.setuid(0),
    }
    answer = jailed(lambda *_: {name: outcome(action) for name, action in actions.items()})
    refused = ("PermissionError", "can't start new thread", "OSError: Bad file descriptor")
    assert answer == {name: answer[name] for name in actions if answer[name] in refused}


def test_no_inherited_descriptor_is_left(jailed, tmp_path):
    with (tmp_path / "secret").open("w+") as secret:
        number = secret.fileno()
        answer = jailed(lambda *_: {"read": outcome(lambda: os.read(number, 1))})
    assert answer == {"read": "OSError: Bad file descriptor"}


@pytest.mark.parametrize(
    ("parse", "problem"),
    [
        pytest.param(lambda *_: ctypes.string_at(0), "crashed the reader (SIGSEGV)", id="crash"),
        pytest.param(lambda *_: os.abort(), "crashed the reader", id="abort"),
        pytest.param(lambda *_: sum(iter(int, 1)), "1 seconds of computing", id="loop"),
        pytest.param(lambda *_: bytearray(1 << 30), "256 MiB of memory", id="memory"),
        pytest.param(lambda _, sink: sink.write(bytes(2 << 20)), "broke the reader", id="disk"),
        pytest.param(lambda *_: {"a": object()}, "broke the reader", id="no JSON"),
        pytest.param(lambda *_: ["a"], "broke the reader", id="no object"),
        pytest.param(lambda *_: 1 / 0, "broke the reader", id="exception"),
        pytest.param(lambda *_: os._exit(0), "broke the reader", id="silence"),
    ],
)
def test_a_failed_parse_is_reported_and_does_no_harm(jailed, parse, problem):
    with pytest.raises(ParseKilledError) as raised:
        jailed(parse)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    "parse",
    [
        pytest.param(lambda *_: _wait_for_ever(), id="waits"),
        pytest.param(lambda *_: {"a": "x" * (MAX_ANSWER_BYTES + 1)}, id="never stops talking"),
    ],
)
def test_a_parse_that_takes_too_long_is_ended(jailed, parse):
    with pytest.raises(ParseKilledError, match="took longer than 1 seconds"):
        jailed(parse, wall_seconds=1)


def _wait_for_ever():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def test_no_child_is_left_behind(jailed):
    before = psutil.Process().children()
    jailed(lambda *_: {})
    with pytest.raises(ParseKilledError):
        jailed(lambda *_: _wait_for_ever(), wall_seconds=0.5)
    assert psutil.Process().children() == before


def test_the_jail_holds_by_seccomp_and_limits_alone_and_says_so(jailed, monkeypatch, capfd):
    monkeypatch.setattr(confinement, "_close_file_system", lambda _: False)
    monkeypatch.setattr(confinement, "_leave_network", lambda _: False)
    monkeypatch.setattr(confinement, "_become_nobody", lambda: False)
    answer = jailed(lambda *_: {"open": outcome(Path("/etc/passwd").read_bytes)})
    assert answer == {"open": "PermissionError"}
    stderr = capfd.readouterr().err
    assert "does not offer Landlock" in stderr
    assert "does not offer a network namespace" in stderr
    assert "does not offer another user" in stderr


def test_without_seccomp_nothing_is_parsed(jailed, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(confinement, "_MACHINES", {})
    with pytest.raises(RuntimeError, match="the jail cannot be built"):
        jailed(lambda _, sink: sink.write(b"parsed"))
    assert (tmp_path / "output").read_bytes() == b""
    assert "OSError" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_the_jail_holds_for_a_user_without_rights(jailed, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)
    tmp_path.chmod(0o777)
    child = os.fork()
    if child == 0:  # leaves without pytest's farewell
        exit_code = 1
        try:
            os.setgroups([])
            os.setresgid(1234, 1234, 1234)
            os.setresuid(1234, 1234, 1234)
            answer = jailed(lambda *_: {"open": outcome(Path("/etc/passwd").read_bytes)})
            exit_code = 0 if answer == {"open": "PermissionError"} else 2
        finally:
            os._exit(exit_code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_child_dies_with_its_parent(jailed, tmp_path):
    def tell_and_wait(source, sink):
        sink.write(str(os.getpid()).encode())
        sink.flush()
        _wait_for_ever()

    parent = os.fork()
    if parent == 0:  # leaves without pytest's farewell
        try:
            jailed(tell_and_wait, wall_seconds=60)
        finally:
            os._exit(0)
    output = tmp_path / "output"
    wait_until(lambda: output.exists() and output.read_bytes())
    child = psutil.Process(int(output.read_bytes()))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within ten seconds")
