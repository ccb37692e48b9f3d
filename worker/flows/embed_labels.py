"""Turns class names into label-text embeddings, or takes them from the cache."""

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
from worker.claims.core_run import CoreRun
from worker.claims.held_job import HeldJob
from worker.claims.workbench import Workbench
from worker.process.child import Limits
from worker.process.environment import embed_environment, hub_home
from worker.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

LTE = "lte.safetensors"
_RESULT = "result.json"


def embed_labels(job: HeldJob, bench: Workbench, spec: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Put `lte.safetensors` into `out`, unless the client's own embeddings are there already.

    Args:
        job: the job with the class names.
        bench: the folder and the tools of the job.
        spec: its resolved specification, of which only labels and text encoder are used.
        out: folder of the canonical files.

    Returns:
        A description of the embeddings: `text_encoder` is the encoder that made them, `fallback_from` the
        encoder that it replaced, if any, and `warnings` has {"code", "message"} of each warning.

    Raises:
        Outcome: there are no embeddings.
    """
    if (out / LTE).exists():
        return {"text_encoder": "file", "fallback_from": None, "warnings": []}
    key = cache_key(spec, bench.settings)
    cached_result = _from_cache(job, bench, key, out)
    if cached_result is not None:
        warnings = [WarningEvent(**warning) for warning in cached_result["warnings"]]
        job.log_events([PhaseEvent(phase=Phase.EMBED), *warnings])
        return cached_result
    result = _embed(job, bench, spec, out)
    # If the hub did not answer, the fallback holds only for now; every other result can be reused.
    if not (bench.settings.allow_hub and result.get("fallback_from")):
        _into_cache(job, bench, key, out, result)
    return result


def cache_key(spec: Mapping[str, Any], settings: Settings) -> str:
    """Digest everything that the embeddings depend on, without torch.

    Three values identify the weights: their source in the operator's settings, the revisions on this
    machine, which decide the meaning of `auto`, and the release of the core.
    """
    weights = None
    if settings.clip_weights is not None and settings.clip_weights.exists():
        status = settings.clip_weights.stat()
        weights = [status.st_size, status.st_mtime_ns]
    encoder = spec["text_encoder"]
    causes = {
        "encoder": encoder["name"],
        "prompt": encoder["prompt"],
        "labels": spec["labels"],
        "clip_weights": weights,
        "clip_cached": cached_clip_revisions(hub_home(settings)),
        "hub": settings.allow_hub,
        "core": importlib.metadata.version("nayer"),
    }
    return hashlib.sha256(json.dumps(causes, sort_keys=True).encode()).hexdigest()


def _from_cache(job: HeldJob, bench: Workbench, key: str, out: Path) -> dict[str, Any] | None:
    file = job.find_embedding(key)
    if file is None:
        return None
    archive = bench.folder / "embedding.zip"
    try:
        bench.fetch(file, archive)
    except (FileMissing, FileCorrupt) as error:
        logger.warning("the labels are embedded again: %s", error.message)
        return None
    with zipfile.ZipFile(archive) as members:
        (out / LTE).write_bytes(members.read(LTE))
        result: dict[str, Any] = json.loads(members.read(_RESULT))
    logger.info("these labels were embedded before")
    return result


def _embed(job: HeldJob, bench: Workbench, spec: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Run the core's `embed`, which sees the specification and no upload."""
    folder, settings = bench.new_folder("embed"), bench.settings
    spec_file = folder / "spec.json"
    spec_file.write_text(json.dumps(spec))
    run = CoreRun(job, bench.program, Watchdog(seconds=settings.embed_seconds))
    result = run.execute(
        ["embed", "--spec", str(spec_file), "--out", str(folder)],
        folder=folder,
        environment=embed_environment(folder, settings),
        limits=Limits(network=settings.allow_hub),
    )
    (folder / LTE).replace(out / LTE)
    return {**result, "warnings": run.warnings}


def _into_cache(job: HeldJob, bench: Workbench, key: str, out: Path, result: Mapping[str, Any]) -> None:
    archive = bench.folder / "embedding.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.write(out / LTE, LTE)
        members.writestr(_RESULT, json.dumps(result))
    job.save_embedding(key, bench.store(archive, "embeddings"))
