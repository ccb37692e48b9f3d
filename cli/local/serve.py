"""Running the whole service on one machine: start, wait until it answers, keep it running, stop."""

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
from typing import Self

import httpx

from cli.errors import ServeError
from cli.local.processes import ServiceGroup
from cli.local.stack import start_stack
from cli.output import Output
from jobs.webhooks.addresses import is_loopback

READY_SECONDS = 60.0
TEND_SECONDS = 0.2
READY_FILE = "service.json"  # in the data folder while the service answers: url, pid, data_dir


def run_service(out: Output, host: str, port: int, data_dir: Path, *, insecure: bool) -> None:
    """Run the service until SIGINT or SIGTERM.

    Args:
        out: prints what happens, and the address once the service answers.
        host: address to listen on.
        port: 0 chooses a free one.
        data_dir: the folder of all data and logs; created where it does not exist.
        insecure: whether the API may answer without a key where other machines reach it.

    Raises:
        ServeError: the service cannot be started here.
    """
    home = data_dir.resolve()
    with _StopRequest() as stop, contextlib.ExitStack() as undo:
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
    """SIGINT and SIGTERM as a flag; a second one raises KeyboardInterrupt."""

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
            "Set it to 16 characters or more, or use --insecure to accept every client.",
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
