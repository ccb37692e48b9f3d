"""Start the API: `python -m api [--host ADDRESS] [--port N]`; settings come from the environment.

Exit codes: 0 after an orderly stop (or the signal that stopped it), 2 for wrong arguments or settings,
3 if the start failed.
"""

import argparse
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvicorn
from pydantic import ValidationError

from api.main import create_app
from api.server import ServerConfig, limits_for, listen, raise_descriptor_limit
from jobs.settings import Settings
from jobs.webhooks.addresses import is_loopback

EXIT_REFUSED, EXIT_NOT_STARTED = 2, 3


def main(argv: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        argv: the arguments after `python -m api`.
    """
    arguments = _parser().parse_args(argv)
    settings = _settings()
    listener = _listener(arguments)
    address = listener.getsockname()
    if settings.api_key is None and not arguments.insecure and not is_loopback(address[0]):
        _refuse(
            f"{address[0]} can be reached from other machines, and NAYER_API_KEY is not set.",
            "Set it to 16 characters or more, or pass --insecure to serve everyone.",
        )
    config = ServerConfig(
        create_app(settings),
        limits_for(raise_descriptor_limit()),
        root_path=arguments.root_path,
        stop_seconds=arguments.stop_seconds,
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn when it has stopped
        server.run(sockets=[listener])
    return 0 if server.started else EXIT_NOT_STARTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free port (default 8000)")
    parser.add_argument("--fd", type=int, help="an open socket to serve, instead of --host and --port")
    parser.add_argument("--root-path", default="", help="path below which a proxy mounts the service")
    parser.add_argument(
        "--stop-seconds", type=int, default=10, help="time for open responses to end (default 10)"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="serve everyone on an address that other machines can reach"
    )
    return parser


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"NAYER_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        _refuse(f"{'; '.join(wrong)}.", "Correct these environment variables.")


def _listener(arguments: argparse.Namespace) -> socket.socket:
    try:
        if arguments.fd is not None:
            return socket.socket(fileno=arguments.fd)
        return listen(arguments.host, arguments.port)
    except OSError as error:
        where = (
            f"descriptor {arguments.fd}" if arguments.fd is not None else f"{arguments.host}:{arguments.port}"
        )
        _refuse(f"Cannot listen on {where}: {error.strerror}.", "Choose another with --host and --port.")


def _refuse(message: str, hint: str) -> NoReturn:
    print(f"{message} {hint}", file=sys.stderr)  # noqa: T201 - for the operator who starts it
    raise SystemExit(EXIT_REFUSED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
