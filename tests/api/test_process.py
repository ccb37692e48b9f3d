"""The server as its own process: its memory, its start and its end."""

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cli.local.server_process import free_port
from jobs.settings import Settings
from tests.api.bodies import BOUNDARY, CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import MIB, wait_until
from tests.support.services import Services


@pytest.fixture
def process(settings: Settings, tmp_path: Path) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    with running(settings, tmp_path) as process_and_client:
        yield process_and_client


@contextlib.contextmanager
def running(
    settings: Settings, tmp_path: Path, *options: str, api_key: str = "", before: str = ""
) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    """Run the API as a process until it is ready; `before` is shell code to run in it first."""
    port = free_port()
    command = [sys.executable, "-m", "api", "--port", str(port), *options]
    log = (tmp_path / "log").open("w")
    child = subprocess.Popen(
        ["/bin/sh", "-c", f"{before}\nexec {shlex.join(command)}"],
        env=environment(settings, tmp_path, api_key),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def answers() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, 30)
        yield psutil.Process(child.pid), client
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        client.close()
        child.kill()
        child.wait()
        log.close()


def environment(settings: Settings, tmp_path: Path, api_key: str = "") -> dict[str, str]:
    return os.environ | {
        "NAYER_DATABASE_URL": settings.database_url,
        "NAYER_REDIS_URL": settings.redis_url,
        "NAYER_STORAGE_URL": f"file://{tmp_path / 'store'}",
        "NAYER_API_KEY": api_key,
    }


EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
def test_a_public_address_needs_a_key(host: str, settings: Settings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "api", "--port", "0", "--host", host]
    refused = subprocess.run(
        command, env=environment(settings, tmp_path), capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "NAYER_API_KEY is not set" in refused.stderr
    assert "--insecure" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "api_key"),
    [(("--host", EVERYWHERE), "0123456789abcdef"), (("--host", EVERYWHERE, "--insecure"), "")],
)
def test_a_public_address_with_a_key_or_insecure_is_served(
    options: tuple[str, ...], api_key: str, settings: Settings, tmp_path: Path
) -> None:
    with running(settings, tmp_path, *options, api_key=api_key) as (_, client):
        assert client.get("/jobs").status_code == (401 if api_key else 200)


def test_a_failed_start_prints_no_traceback(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "api", "--port", str(listener.getsockname()[1])]
        result = subprocess.run(
            command, env=environment(settings, tmp_path), capture_output=True, text=True, check=False
        )
    assert result.returncode == 2
    assert result.stderr.startswith("Cannot listen on 127.0.0.1:")
    result = subprocess.run(
        command, env=environment(settings, tmp_path, "too short"), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("NAYER_API_KEY: ")
    assert "too short" not in result.stderr


def test_half_open_requests_do_not_use_up_the_descriptors(settings: Settings, tmp_path: Path) -> None:
    with contextlib.ExitStack() as closing:
        # A hard limit as small as the usual soft one would be for a real attack.
        server, client = closing.enter_context(
            running(settings, tmp_path, before="ulimit -Sn 100; ulimit -Hn 200")
        )
        assert server.rlimit(psutil.RLIMIT_NOFILE) == (200, 200)
        for _ in range(400):
            address = (client.base_url.host, client.base_url.port or 80)
            connection = closing.enter_context(socket.create_connection(address, timeout=5))
            connection.sendall(b"GET /jobs HTTP/1.1\r\nHost:")
        for _ in range(10):
            assert httpx.get(client.base_url.join("/readyz")).status_code == 200
        assert server.num_fds() < 200


def test_an_upload_is_not_held_in_memory(
    process: tuple[psutil.Process, httpx.Client], service: Services, tmp_path: Path
) -> None:
    server, client = process
    size, chunk = 200 * MIB, os.urandom(MIB)
    digest = hashlib.sha256()

    def content() -> Iterator[bytes]:
        yield spec_part() + teacher_part(b"")[:-2]
        for _ in range(size // MIB):
            digest.update(chunk)
            yield chunk
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    before, peak = server.memory_info().rss, peak_bytes(server)
    response = client.post("/jobs", content=content(), headers={"Content-Type": CONTENT_TYPE})
    assert response.status_code == 202, response.text
    assert response.json()["teacher"]["sha256"] == digest.hexdigest()
    assert response.json()["teacher"]["bytes"] == size
    grown = max(peak, peak_bytes(server)) - before
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB for an upload of {size / MIB:.0f} MiB"


def test_open_streams_end_on_sigterm(
    process: tuple[psutil.Process, httpx.Client],
) -> None:
    server, client = process
    content = body(spec_part(), teacher_part())
    job = client.post("/jobs", content=content, headers={"Content-Type": CONTENT_TYPE}).json()
    with client.stream("GET", job["links"]["events"], headers={"Accept": "text/event-stream"}) as response:
        lines = response.iter_lines()
        while next(lines) != ": following":
            pass
        stopping = threading.Timer(0.1, server.send_signal, [signal.SIGTERM])
        stopping.start()
        assert list(lines)[-1:] in ([], [""])  # ended in order, not broken off
    assert server.wait(timeout=20) in (0, -signal.SIGTERM)  # uvicorn raises it again at the end


def peak_bytes(process: psutil.Process) -> int:
    """Peak resident memory of a process in bytes, which psutil does not report."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
