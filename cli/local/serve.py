"""`nayer serve`: the whole service on one machine, until Ctrl-C."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Self

import httpx
import typer

from cli import options
from cli.errors import ServeError
from cli.local.processes import ServiceGroup
from cli.local.stack import start_stack
from cli.output import Output, answering
from jobs.webhooks.addresses import is_loopback

DEFAULT_DATA_DIR = Path(".nayer")
READY_SECONDS = 60.0
TEND_SECONDS = 0.2
READY_FILE = "service.json"  # in the data folder while the service answers: url, pid, data_dir

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")]
Port = Annotated[int, typer.Option(envvar="PORT", min=0, max=65535, help="0 takes a free one.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Answer everyone who reaches --host, without NAYER_API_KEY.")
]
DataDir = Annotated[Path, typer.Option(envvar="NAYER_DATA_DIR", help="Kept from run to run.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C.

    With --json one object with url, pid and data_dir is printed when it is ready. PostgreSQL and
    Valkey are started here unless NAYER_DATABASE_URL and NAYER_REDIS_URL name others; files lie in
    the data folder unless NAYER_STORAGE_URL names another store.
    """
    home = data_dir.resolve()
    with answering(as_json) as out, _StopRequest() as stop, contextlib.ExitStack() as undo:
        undo.enter_context(_only_one(home))
        listener = undo.enter_context(_listening(host, port))
        if not insecure:
            _require_key(listener)
        address = f"http://{_reachable(host)}:{listener.getsockname()[1]}"
        group = ServiceGroup(out.say)
        undo.callback(group.stop)
        out.say(f"starting in {home}")
        start_stack(group, home, listener, insecure=insecure)
        _wait_until_ready(address, home, group, stop)
        if not stop.requested:
            undo.enter_context(_announced(out, home, address))
        while not stop.requested:
            group.tend()
            time.sleep(TEND_SECONDS)
        out.say("stopping; once more to stop at once")


class _StopRequest:
    """SIGINT and SIGTERM as a flag; while it is being heeded, the next one interrupts."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    # The kernel gives the lock back however this process ends.
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServeError(
                "already_running",
                f"A service already runs on {home}{_where(home)}.",
                "Use that one, or give another folder with --data-dir or NAYER_DATA_DIR.",
            ) from error
        yield


def _where(home: Path) -> str:
    try:
        ready = json.loads((home / READY_FILE).read_text())
        return f": {ready['url']}, process {ready['pid']}"
    except (OSError, ValueError, KeyError):
        return ""


def _listening(host: str, port: int) -> socket.socket:
    # Held here and handed to the API: a restart of the API refuses no connection.
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ServeError(
            "port_taken" if port else "address_unusable",
            f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.",
            "Choose another with --port or PORT; 0 takes a free one.",
        ) from error


def _require_key(listener: socket.socket) -> None:
    address = listener.getsockname()[0]
    if not is_loopback(address) and not os.environ.get("NAYER_API_KEY"):
        raise ServeError(
            "api_key_missing",
            f"{address} can be reached from other machines, and NAYER_API_KEY is not set.",
            "Set it to 16 characters or more, or give --insecure to let everyone in.",
        )


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
    return f"[{host}]" if ":" in host else host


def _wait_until_ready(address: str, home: Path, group: ServiceGroup, stop: _StopRequest) -> None:
    deadline = time.monotonic() + READY_SECONDS
    answer = "nothing"
    while not stop.requested:
        with contextlib.suppress(httpx.TransportError):
            response = httpx.get(f"{address}/readyz", timeout=5, trust_env=False)
            if response.is_success:
                return
            answer = response.text
        if time.monotonic() > deadline:
            raise ServeError(
                "not_ready",
                f"{address}/readyz was not ready within {READY_SECONDS:g} s; it answered {answer}.",
                f"The logs are in {home / 'logs'}.",
            )
        group.tend()
        time.sleep(TEND_SECONDS)


@contextlib.contextmanager
def _announced(out: Output, home: Path, address: str) -> Iterator[None]:
    document = {"url": address, "pid": os.getpid(), "data_dir": str(home)}
    ready = home / READY_FILE
    ready.write_text(json.dumps(document) + "\n")
    try:
        out.result(document, f"nayer answers at {address} (logs in {home / 'logs'})")
        yield
    finally:
        ready.unlink(missing_ok=True)
