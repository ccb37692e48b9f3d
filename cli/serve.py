"""`nayer serve` and `nayer fetch-encoders`: the commands that need the packages of the service."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import typer

from cli import options
from cli.errors import ServeError
from cli.output import answering

# Extra of the distribution -> packages of it without which a command cannot work.
PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "service": ("alembic", "celery", "obstore", "psycopg", "pydantic_settings", "sqlalchemy"),
        "api": ("fastapi", "prometheus_client", "python_multipart", "uvicorn"),
        "core": ("open_clip", "safetensors", "sentence_transformers", "timm", "torch"),
    }
)

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")]
Port = Annotated[int, typer.Option(envvar="PORT", min=0, max=65535, help="0 takes a free one.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Accept every client at --host, without NAYER_API_KEY.")
]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    insecure: Insecure = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C.

    With --json one object with url, pid and data_dir is printed when it is ready. PostgreSQL and
    Valkey are started here unless NAYER_DATABASE_URL and NAYER_REDIS_URL name others; files are stored in
    the data folder unless NAYER_STORAGE_URL names another store.
    """
    with answering(as_json) as out:
        _require("`nayer serve`", "service", "api", "core", install="api,core,local")
        from cli.local.serve import run_service

        run_service(out, host, port, data_dir, insecure=insecure)


def fetch_encoders(data_dir: options.DataDir = options.DEFAULT_DATA_DIR) -> None:
    """Fetch the text encoders' weights into the data folder, so that jobs need no network.

    Needs the core's packages and the hub; HF_HOME names another folder for both, this and `serve`.
    """
    with answering(as_json=False):
        _require("`nayer fetch-encoders`", "core", install="core")
    environment = {"HF_HOME": str(data_dir.resolve() / "huggingface")} | os.environ | {"HF_HUB_OFFLINE": "0"}
    raise typer.Exit(subprocess.call([sys.executable, "-m", "nayer_core", "fetch-encoders"], env=environment))


def _require(command: str, *extras: str, install: str) -> None:
    packages = [package for extra in extras for package in PACKAGES[extra]]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ServeError(
            "packages_missing",
            f"{command} needs packages that are not installed here: {', '.join(missing[:3])}{more}.",
            f"Install them: pip install 'nayer[{install}]'.",
        )
