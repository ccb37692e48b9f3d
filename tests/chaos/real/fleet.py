"""The whole service as processes, each behind proxies of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from cli.local.server_process import die_with_parent, free_port
from jobs.files.store import Storage
from jobs.settings import Settings
from tests.chaos.real.proxy import Hold, Proxy
from tests.support.seaweedfs import EmbeddedSeaweed
from tests.support.services import Services

LEASE_SECONDS = 2.0
SECRET = "seeded-secret-of-the-chaos"
CHAOS_CORE = "tests.chaos.real.celery_with_chaos_core"


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a condition and return its value; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.03)
    return result


@dataclass
class Servers:
    """The servers that the service uses."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    seaweedfs: EmbeddedSeaweed
    database: str


@dataclass
class Member:
    """One process of the service and its proxies.

    Args:
        name: as in "distill-0".
        command: its command line after `python -m`.
        environment: its environment variables.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    db: Proxy
    store: Proxy
    broker: Proxy
    process: "subprocess.Popen[bytes] | None" = None
    ready: Callable[[], bool] = field(default=lambda: True)

    def start(self) -> None:
        if self.alive():
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def cores(self) -> list[psutil.Process]:
        """The core processes that it has started."""
        assert self.process is not None
        cores = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                command = " ".join(child.cmdline())
                if ("core.py" in command or "nayer_core" in command) and "launcher" not in command:
                    cores.append(child)
        return cores

    @property
    def proxies(self) -> tuple[Proxy, Proxy, Proxy]:
        return self.db, self.store, self.broker


class Fleet:
    """API, upkeep, two inspectors and two distillers over real servers.

    Args:
        servers: real and running.
        folder: for logs and scratch files.
        celery: the Celery application of the workers, which decides on the core.
        settings: `NAYER_*` variables beside the usual ones.
    """

    def __init__(self, servers: Servers, folder: Path, celery: str = CHAOS_CORE, **settings: object):
        self.servers = servers
        self.folder = folder
        self._settings: dict[str, object] = {
            "lease_seconds": LEASE_SECONDS,
            "upkeep_seconds": 0.3,
            "ring_again_seconds": 1.0,
            "inspect_seconds": 30,
            "stall_seconds": 60,
            "drain_seconds": 15,
            "checkpoint_seconds": 0.2,
            "device": "cpu",
            **settings,
        }
        self.port = free_port()
        self.api = self._member("api", ["api", "--port", str(self.port), "--stop-seconds", "2"])
        self.upkeep = self._member("upkeep", ["worker.upkeep"])
        self.inspectors = [self._worker("inspect", n, celery) for n in range(2)]
        self.distillers = [self._worker("distill", n, celery) for n in range(2)]
        self.members = [self.api, self.upkeep, *self.inspectors, *self.distillers]
        plain = self._settings_of(None)
        self.settings = Settings(**plain)
        self.service = Services.open(self.settings)
        self.storage = Storage.open(servers.seaweedfs.url, servers.seaweedfs.options)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def start(self) -> None:
        """Start each process that is not running, and undo all faults of the network."""
        for server in (self.servers.postgres, self.servers.valkey, self.servers.seaweedfs):
            server.start()
        for member in self.members:
            for proxy in member.proxies:
                if proxy.mode != "pass":
                    proxy.turn("pass")
                for hold in proxy.holds:
                    hold.let("cut")
                proxy.holds.clear()
                proxy.behave()
            if member.alive():
                member.send(signal.SIGCONT)
            member.start()
        wait_for(self._answers, 60, "the API answers")

    def stop(self) -> None:
        for member in self.members:
            for proxy in member.proxies:
                proxy.close()
            member.kill()
        self.client.close()
        self.service.close()

    def hold(self, members: list[Member], marker: bytes) -> Hold:
        """Stop the first transaction of these members that contains the marker, at its COMMIT."""
        hold = Hold(marker)
        for member in members:
            member.db.holds.append(hold)
        return hold

    def holder(self, hold: Hold) -> Member:
        return next(member for member in self.members if member.db is hold.by)

    def worker_of(self, job_id: str) -> Member:
        """The member that holds a job, by the name in its row."""

        def holder() -> Member | None:
            with self.service.resources.database.transaction() as session:
                from sqlalchemy import text

                name = session.execute(text("SELECT worker FROM job WHERE id = :id"), {"id": job_id}).scalar()
            pid = int(str(name).split(":")[1]) if name else None
            workers = [*self.inspectors, *self.distillers]
            return next((w for w in workers if w.process is not None and w.process.pid == pid), None)

        return wait_for(holder, 20, "somebody holds the job")  # type: ignore[no-any-return]

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/readyz").status_code == 200
        return False

    def _worker(self, queue: str, number: int, celery: str) -> Member:
        name = f"{queue}-{number}"
        command = ["celery", "-A", celery, "worker", "-Q", queue, "-n", f"{name}-{uuid.uuid4()}@chaos"]
        command += ["-P", "threads", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO"]
        return self._member(name, command)

    def _member(self, name: str, command: list[str]) -> Member:
        servers = self.servers
        proxies = [Proxy(server.port) for server in (servers.postgres, servers.seaweedfs, servers.valkey)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NAYER_SEEDED": SECRET}
        environment |= {f"NAYER_{key.upper()}": str(v) for key, v in self._settings_of(proxies).items()}
        environment |= servers.seaweedfs.environment
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxies[1].port}"
        return Member(name, command, environment, self.folder / f"{name}.log", *proxies)

    def _settings_of(self, proxies: list[Proxy] | None) -> dict[str, Any]:
        servers = self.servers
        database, broker = servers.postgres.url_of(servers.database), servers.valkey.url
        if proxies is not None:
            database = database.replace(f":{servers.postgres.port}/", f":{proxies[0].port}/")
            broker = broker.replace(f":{servers.valkey.port}/", f":{proxies[2].port}/")
        scratch = {"scratch_dir": self.folder / "scratch", "data_dir": self.folder / "data"}
        urls = {"database_url": database, "redis_url": broker, "storage_url": servers.seaweedfs.url}
        return {**self._settings, **scratch, **urls}
