"""Class names to label-text embeddings: from the cache where these labels were embedded before."""

import hashlib
import importlib.metadata
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.errors import FileCorrupt, FileMissing
from jobs.settings import Settings
from nayer_core.contract.encoders import cached_clip_revisions
from nayer_core.contract.events import Phase, PhaseEvent, WarningEvent
from worker.claims.attempt import Attempt
from worker.process.child import Limits
from worker.process.environment import embed_environment, hub_home
from worker.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

LTE = "lte.safetensors"
_RESULT = "result.json"


def embed(attempt: Attempt, resolved: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Put `lte.safetensors` into `out`, unless the client's own embeddings lie there already.

    Args:
        attempt: the claimed job.
        resolved: its `ResolvedSpec` document; labels and text encoder are all that is used.
        out: folder of the canonical files.

    Returns:
        What is known of the embeddings: `text_encoder` names the encoder that made them, `warnings`
        holds {"code", "message"} of what was doubtful about it.

    Raises:
        Outcome: they could not be made.
    """
    if (out / LTE).exists():
        return {"text_encoder": "file", "fallback_from": None, "warnings": []}
    key = cache_key(resolved, attempt.settings)
    known = _from_cache(attempt, key, out)
    if known is not None:
        attempt.tell([PhaseEvent(phase=Phase.EMBED), *(WarningEvent(**told) for told in known["warnings"])])
        return known
    folder = attempt.folder / "embed"
    folder.mkdir()
    spec = folder / "spec.json"
    spec.write_text(json.dumps(resolved))
    already_told = len(attempt.warnings)
    result = attempt.run(
        ["embed", "--spec", str(spec), "--out", str(folder)],
        folder=folder,
        environment=embed_environment(folder, attempt.settings),
        limits=Limits(network=attempt.settings.allow_hub),
        watchdog=Watchdog(seconds=attempt.settings.embed_seconds),
    )
    (folder / LTE).replace(out / LTE)
    result["warnings"] = attempt.warnings[already_told:]
    # A fallback because the hub did not answer is true today only; any other result stays true.
    if not (attempt.settings.allow_hub and result.get("fallback_from")):
        _into_cache(attempt, key, out, result)
    return result


def cache_key(resolved: Mapping[str, Any], settings: Settings) -> str:
    """Digest everything that the embeddings are a function of, without asking for torch.

    Weights are named by where the operator's settings take them from, by what of them this machine has,
    which decides what `auto` comes to, and by the release of the core.
    """
    weights = None
    if settings.clip_weights is not None and settings.clip_weights.exists():
        found = settings.clip_weights.stat()
        weights = [found.st_size, found.st_mtime_ns]
    encoder = resolved["text_encoder"]
    asked = {
        "encoder": encoder["name"],
        "prompt": encoder["prompt"],
        "labels": resolved["labels"],
        "clip_weights": weights,
        "clip_cached": cached_clip_revisions(hub_home(settings)),
        "hub": settings.allow_hub,
        "core": importlib.metadata.version("nayer"),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _from_cache(attempt: Attempt, key: str, out: Path) -> dict[str, Any] | None:
    stored = attempt.write(lambda: attempt.service.find_embedding(key))
    if stored is None:
        return None
    archive = attempt.folder / "embedding.zip"
    try:
        attempt.fetch(stored, archive)
    except (FileMissing, FileCorrupt) as error:
        logger.warning("the embeddings are made anew: %s", error.message)
        return None
    with zipfile.ZipFile(archive) as members:
        (out / LTE).write_bytes(members.read(LTE))
        result: dict[str, Any] = json.loads(members.read(_RESULT))
    logger.info("these labels were embedded before")
    return result


def _into_cache(attempt: Attempt, key: str, out: Path, result: Mapping[str, Any]) -> None:
    archive = attempt.folder / "embedding.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.write(out / LTE, LTE)
        members.writestr(_RESULT, json.dumps(result))
    stored = attempt.store(archive, "embeddings")
    attempt.write(lambda: attempt.service.save_embedding(key, stored))
