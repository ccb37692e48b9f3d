"""Run one parse of a stranger's file in a process that can do nothing else.

The child is forked from a process that has imported everything the parse needs. It reads the upload from one
descriptor, writes one file through another and sends a JSON object over a pipe. The parent treats both as
untrusted data: an attacker who controls the child can send false data and do nothing else.
"""

import contextlib
import errno
import faulthandler
import gc
import json
import logging
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, NoReturn

from nayer_core.contract.disk import disk_trouble
from nayer_core.uploads.confinement import ParseLimits, confine

_log = logging.getLogger(__name__)

# (the upload, the file to write) -> a small JSON object
Parse = Callable[[BufferedReader, BufferedWriter], dict[str, Any]]

MAX_ANSWER_BYTES = 4 << 20
_MAX_NAME_BYTES = 60  # of an exception
# Exit codes of the child.
_DONE, _OUT_OF_MEMORY, _RAISED, _NOT_CONFINED, _DISK_FAILED = 0, 11, 12, 13, 14


class ParseKilledError(Exception):
    """The parse ended without an answer; the message says why, for people to read."""


def parse_in_jail(
    parse: Parse, upload: Path, output: Path, limits: ParseLimits, *, wall_seconds: float
) -> dict[str, Any]:
    """Run `parse` on `upload` in a forked, confined child.

    `parse` must not import, open or start anything: load what it needs before. It may write to `output`
    alone.

    Args:
        parse: called in the child.
        upload: the stranger's file.
        output: created, readable by the owner only; its content is undefined after an error.
        limits: what the child may use.
        wall_seconds: time limit, after which the child is killed.

    Returns:
        The result of `parse`.

    Raises:
        ParseKilledError: it crashed, reached a limit, raised, or answered no JSON object.
        RuntimeError: the jail cannot be built on this machine.
        OSError: the disk takes no more data.
    """
    deadline = time.monotonic() + wall_seconds
    with upload.open("rb") as source, output.open("wb") as sink:
        output.chmod(0o600)
        answer_end, child_end = os.pipe()
        child = _fork()
        if child == 0:
            _run_in_jail(parse, source, sink, child_end, limits)
        os.close(child_end)
        answer = _read_answer(answer_end, deadline)
        os.close(answer_end)  # ends a child that would write more
        exit_code = _wait(child, deadline)
    if answer is None or exit_code is None:
        raise ParseKilledError(f"took longer than {wall_seconds:g} seconds to read")
    return _result(answer, exit_code, limits)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; the child needs none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run_in_jail(
    parse: Parse, source: BufferedReader, sink: BufferedWriter, answers: int, limits: ParseLimits
) -> NoReturn:
    """The child: runs the parse and exits. Never returns into the parent's code."""
    exit_code = _NOT_CONFINED
    try:
        gc.disable()  # the parent's garbage must not be finalised here
        faulthandler.disable()  # a crash is expected here, and the parent reports it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(2, source.fileno(), sink.fileno(), answers)
        for layer in confine(limits):
            _log_to_stderr(f"this machine does not offer {layer}; the other layers of the jail hold")
        os.close(2)  # the last descriptor that leads to anyone but the parent
        exit_code = _RAISED
        answer = json.dumps(parse(source, sink)).encode()
        sink.flush()
        os.write(answers, answer)
        exit_code = _DONE
    except MemoryError:
        exit_code = _OUT_OF_MEMORY
    except BaseException as error:  # no exception may reach the parent's code
        _log_to_stderr(f"{type(error).__name__} while the jail was built")
        os.write(answers, type(error).__name__.encode())
        if exit_code == _RAISED and disk_trouble(error):
            exit_code = _DISK_FAILED
    finally:
        os._exit(exit_code)


def _log_to_stderr(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"inspect: {message}\n".encode(errors="replace"))


def _close_all_but(*descriptors: int) -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        descriptor = int(entry.name)
        if descriptor not in descriptors:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(descriptor)


def _read_answer(pipe: int, deadline: float) -> bytes | None:
    """Read until the child closes its end; None if that takes too long or the answer is too large."""
    received = bytearray()
    while (seconds_left := deadline - time.monotonic()) > 0 and len(received) <= MAX_ANSWER_BYTES:
        if select.select([pipe], [], [], seconds_left)[0]:
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                return bytes(received)
            received += chunk
    return None


def _result(answer: bytes, exit_code: int, limits: ParseLimits) -> dict[str, Any]:
    if exit_code == _DISK_FAILED:  # a false report only makes the stranger's own job run again
        raise OSError(errno.ENOSPC, "the disk took no more of what was read")
    if exit_code == _NOT_CONFINED:
        raise RuntimeError("the jail cannot be built on this machine; stderr names the error")
    if exit_code == -signal.SIGXCPU:
        raise ParseKilledError(f"took more than {limits.cpu_seconds} seconds of computing to read")
    if exit_code == -signal.SIGKILL:
        raise ParseKilledError("took more memory or time to read than this machine allows")
    if exit_code == _OUT_OF_MEMORY:
        raise ParseKilledError(f"needed more than {limits.memory_bytes >> 20} MiB of memory to read")
    if exit_code < 0:
        raise ParseKilledError(f"crashed the reader ({signal.Signals(-exit_code).name})")
    if exit_code == _RAISED:
        _log.warning("the parse raised %s", ascii(answer[:_MAX_NAME_BYTES].decode(errors="replace")))
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(answer) if exit_code == _DONE else None
        if isinstance(document, dict):
            return document
    raise ParseKilledError("broke the reader")


def _wait(child: int, deadline: float) -> int | None:
    """Wait for the child until the deadline, then kill it; None if it was killed."""
    while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(status[1])
