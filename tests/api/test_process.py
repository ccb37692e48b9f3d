"""The server as its own process: what it holds in memory, and how it stops."""

import hashlib
import os
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

from jobs.settings import Settings
from tests.api.bodies import BOUNDARY, CONTENT_TYPE, body, spec_part, teacher_part
from tests.api.conftest import MIB, wait_until
from tests.support.services import Services


@pytest.fixture
def process(settings: Settings, tmp_path: Path) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "NAYER_DATABASE_URL": settings.database_url,
        "NAYER_REDIS_URL": settings.redis_url,
        "NAYER_STORAGE_URL": f"file://{tmp_path / 'store'}",
    }
    command = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory", "--port", str(port)]
    log = (tmp_path / "log").open("w")
    child = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
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


def test_an_upload_is_never_held(
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


def test_open_streams_end_when_the_process_is_told_to_stop(
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
    """The most memory this process ever held; psutil does not tell."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
