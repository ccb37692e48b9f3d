"""The variables of the worker's environment that a core process gets: an allow-list without secrets."""

import os
from collections.abc import Mapping
from pathlib import Path

from jobs.settings import Settings

_NAMES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "OMP_", "MKL_", "PYTORCH_")
# Only if the hub is allowed: a proxy's address may contain a password, so no other child gets it.
_HUB_NAMES = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


def core_environment(folder: Path, source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that every core process gets.

    Args:
        folder: its working folder; home and temporary files are kept there too.
        source: the worker's own environment.
    """
    visible = {k: v for k, v in source.items() if k in _NAMES or k.startswith(_PREFIXES)}
    # A hub that cannot be reached would cost 46 s (measured).
    return visible | {"HOME": str(folder), "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}


def hub_home(settings: Settings, source: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which this machine caches the weights of encoders."""
    return Path(source.get("HF_HOME", str(settings.data_dir / "huggingface")))


def embed_environment(
    folder: Path, settings: Settings, source: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the variables for `embed`: also the place of encoder weights, and the hub if it is allowed."""
    environment = core_environment(folder, source)
    environment["HF_HOME"] = str(hub_home(settings, source))
    if settings.clip_weights is not None:
        environment["NAYER_CLIP_WEIGHTS"] = str(settings.clip_weights)
    if settings.allow_hub:
        environment["HF_HUB_OFFLINE"] = "0"
        environment |= {name: source[name] for name in _HUB_NAMES if name in source}
    return environment
