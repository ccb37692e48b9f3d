"""Connections to a bucket: credentials, time-outs, and plain HTTP for self-hosted stores."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import obstore
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import S3Config

# A piece is at most 5 MiB (jobs.files.bodies): a request that takes longer than this hangs.
REQUEST_SECONDS = 30
RETRY_SECONDS = 15
PROBE_SECONDS = 3


def open_bucket(name: str, prefix: str, options: Mapping[str, str], *, patient: bool) -> S3Store:
    """Open a bucket; connects to nothing yet.

    Args:
        options: take the place of the `AWS_*` variables that obstore reads.
        patient: whether requests are repeated; a probe makes one short request.
    """
    endpoint = options.get("endpoint") or _endpoint_of_environment()
    seconds = REQUEST_SECONDS if patient else PROBE_SECONDS
    config = cast("S3Config", {**options, **({"endpoint": endpoint} if endpoint else {})})
    return S3Store(
        name,
        prefix=prefix or None,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=PROBE_SECONDS),
            "timeout": timedelta(seconds=seconds),
        },
        retry_config={
            "max_retries": 3 if patient else 0,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS if patient else PROBE_SECONDS),
        },
        config=config,
    )


def sign_download(store: S3Store, key: str, seconds: float) -> str:
    """Sign a URL with which anyone can GET one file for `seconds`; this needs no request to the store."""
    url: str = obstore.sign(store, "GET", key, timedelta(seconds=seconds))
    return url


def _endpoint_of_environment() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
