import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nayer_core.contract.events import FinishedEvent, MetricsEvent
from worker.process import child as child_module
from worker.process.child import Child, Limits

Start = Callable[..., Child]

METRICS = '{"event": "metrics", "time": "2026-01-01T00:00:00Z", "epoch": 1, "step": 1, "values": {"kl": 0.5}}'
FINISHED = '{"event": "finished", "time": "2026-01-01T00:00:00Z", "command": "distill", "result": {}}'


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def run(script: str, limits: Limits | None = None, **environment: str) -> Child:
        program = tmp_path / f"program_{len(children)}.py"
        program.write_text(textwrap.dedent(script))
        command = [sys.executable, "-I", "-S", str(program)]
        children.append(Child(command, folder=tmp_path, environment=environment, limits=limits or Limits()))
        return children[-1]

    yield run
    for child in children:
        child.end()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s"
        time.sleep(0.01)


def finish(child: Child) -> int:
    wait_until(lambda: not child.running())
    return child.end()


def test_events_arrive_in_order_and_garbage_is_dropped(start: Start) -> None:
    child = start(f"""
        print('{METRICS}')
        print('hello from a library')
        print('{{"event": "unheard of"}}')
        print('\\0\\xff{{')
        print('x' * 3_000_000)
        print('{FINISHED}')
    """)
    assert finish(child) == 0
    events = child.take_events(100)
    assert [type(event) for event in events] == [MetricsEvent, FinishedEvent]


def test_a_partial_line_of_a_killed_child_is_dropped(start: Start) -> None:
    child = start(f"""
        import os, signal
        os.write(1, b'{METRICS}\\n{FINISHED[:40]}')
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert finish(child) == -signal.SIGKILL
    assert [type(event) for event in child.take_events(100)] == [MetricsEvent]


def test_a_flood_of_events_makes_the_child_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "MAX_BUFFERED_EVENTS", 50)
    child = start(f"""
        for _ in range(5000):
            print('{METRICS}', flush=True)
    """)
    wait_until(child.is_blocked)
    time.sleep(0.2)
    assert child.running()
    count = 0
    while child.running():
        count += len(child.take_events(20))
        time.sleep(0.0001)
    child.end()
    count += len(child.take_events(10_000))
    assert count == child.events_seen == 5000


def test_stderr_is_kept_to_a_bounded_tail(start: Start) -> None:
    child = start("import sys; sys.stderr.write('a' * 200_000 + 'the last words')")
    finish(child)
    tail = child.stderr_tail()
    assert tail.endswith("the last words")
    assert len(tail) == child_module.STDERR_TAIL_BYTES


def test_the_end_of_a_child_ends_its_process_group(start: Start, tmp_path: Path) -> None:
    child = start("""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            open('grandchild', 'w').write(str(os.getpid()))
        time.sleep(60)
    """)
    wait_until(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text() != "")
    grandchild = psutil.Process(int((tmp_path / "grandchild").read_text()))
    child.request_stop()
    time.sleep(0.1)
    assert child.running()
    assert child.end() == -signal.SIGKILL
    wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(60)")
    (tmp_path / "supervisor.py").write_text(
        textwrap.dedent(f"""
            import pathlib, sys, time
            from worker.process.child import Child, Limits
            folder = pathlib.Path({str(tmp_path)!r})
            command = [sys.executable, "-I", "-S", str(folder / "sleeper.py")]
            child = Child(command, folder=folder, environment={{}}, limits=Limits())
            print(child.pid, flush=True)
            time.sleep(60)
        """)
    )
    supervisor = subprocess.Popen(
        [sys.executable, str(tmp_path / "supervisor.py")], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        child = psutil.Process(int(supervisor.stdout.readline()))
        command = ["-I", "-S", str(tmp_path / "sleeper.py")]
        wait_until(lambda: child.cmdline()[1:] == command)  # until then it is still the launcher
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_the_environment_has_only_the_passed_variables(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "seeded-secret")
    child = start("import os, sys; sys.stderr.write(repr(dict(os.environ)))", NAME="value")
    finish(child)
    assert "seeded-secret" not in child.stderr_tail()
    assert "'NAME': 'value'" in child.stderr_tail()


def test_memory_is_limited(start: Start) -> None:
    child = start("bytearray(1 << 30)", Limits(memory_bytes=512 << 20))
    assert finish(child) == 1
    assert "MemoryError" in child.stderr_tail()


def test_file_size_is_limited(start: Start) -> None:
    child = start("open('big', 'wb').write(bytes(2 << 20))", Limits(file_bytes=1 << 20))
    assert finish(child) == 1
    assert "File too large" in child.stderr_tail()


@pytest.mark.skipif(os.geteuid() != 0, reason="an empty network namespace is certain only as root")
def test_there_is_no_network(start: Start) -> None:
    child = start("""
        import socket, sys
        sys.stderr.write(repr([name for _, name in socket.if_nameindex()]))
    """)
    finish(child)
    assert (
        child.stderr_tail().startswith(("['lo']", "['lo', ")) or "no network namespace" in child.stderr_tail()
    )


def test_processes_that_share_a_run_can_meet_at_loopback(start: Start) -> None:
    child = start("""
        import socket
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=10).close()
    """)
    assert finish(child) == 0, child.stderr_tail()
