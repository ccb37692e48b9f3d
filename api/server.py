"""Serves the API with uvicorn and bounded connections, for `python -m api` and for the tests."""

import dataclasses
import logging
import resource
import socket

from fastapi import FastAPI

from api.connections import BoundedConfig, ConnectionLimits

MAX_DESCRIPTORS = 65_536  # more than two for each connection of the largest limit that makes sense
BACKLOG = 2048  # connections that the kernel accepts while this process is busy
log = logging.getLogger(__name__)


class ServerConfig(BoundedConfig):
    """uvicorn's configuration for the API.

    Args:
        app: the application.
        limits: limits of the connections.
        log_level: of uvicorn itself; None is "info".
        root_path: the prefix of every path if a proxy mounts the service below its root; else empty.
        stop_seconds: time for open responses to end when the server stops.
    """

    def __init__(
        self,
        app: FastAPI,
        limits: ConnectionLimits,
        *,
        log_level: str | None = None,
        root_path: str = "",
        stop_seconds: int | None = None,
    ):
        super().__init__(
            app,
            limits,
            ws="none",  # the API has no web sockets, and their protocol would be free of the bounds
            access_log=False,
            log_level=log_level,
            root_path=root_path,
            backlog=BACKLOG,
            timeout_graceful_shutdown=stop_seconds,
        )


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that the API listens on.

    Args:
        host: an address or a name; an address with colons is IPv6.
        port: 0 picks a free port.

    Raises:
        OSError: the socket cannot listen on this address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard limit; return how many files may now be open.

    The usual soft limit of 1,024 is there for programs that call select(); this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= highest:
        return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    return highest


def limits_for(descriptors: int) -> ConnectionLimits:
    """The default limits, with no more connections than half of the descriptors."""
    usual = ConnectionLimits()
    return dataclasses.replace(usual, connections=min(usual.connections, descriptors // 2))
