"""Confines itself, then becomes the core program: `python -I -S launcher.py LIMITS COMMAND...`.

A process of its own between the supervisor and the core, because the supervisor has threads, and
code between fork and exec in a threaded process can deadlock. Standard library only: it runs
before any installed package can be imported.

LIMITS is a JSON object; every key is optional:
    parent           pid of the supervisor: without it the program must not start
    network          false requests an empty network namespace (best effort: containers may refuse)
    memory_bytes     RLIMIT_AS
    file_bytes       RLIMIT_FSIZE
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # linux/sockios.h, linux/if.h
_OOM_SCORE = "500"  # of -1000..1000: when memory runs out, the kernel kills the child before its supervisor


def _die_with(libc: ctypes.CDLL, parent: int) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above, so no signal will come
        sys.exit("launcher: the supervisor is gone")


def _leave_network(libc: ctypes.CDLL) -> None:
    if libc.unshare(_CLONE_NEWNET) == 0:
        _raise_loopback()
        return
    user, group = os.geteuid(), os.getegid()
    # As root in a user namespace of one user the core could no longer drop its privileges.
    if user == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        sys.stderr.write("launcher: no network namespace is available; the network stays visible\n")
        return
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _raise_loopback()


def _raise_loopback() -> None:
    """Let the processes of a run reach each other in an empty network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
        except OSError as error:
            sys.stderr.write(f"launcher: loopback stays down: {error}\n")


def _limit(kind: int, value: int | None) -> None:
    if value is None:
        return
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def confine(limits: dict[str, Any]) -> None:
    """Apply `limits` to this process and to the program that replaces it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if "parent" in limits:
        _die_with(libc, limits["parent"])
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    if not limits.get("network", True):
        _leave_network(libc)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would contain a client's weights
    _limit(resource.RLIMIT_AS, limits.get("memory_bytes"))
    _limit(resource.RLIMIT_FSIZE, limits.get("file_bytes"))


if __name__ == "__main__":
    confine(json.loads(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  the command is the supervisor's own list
