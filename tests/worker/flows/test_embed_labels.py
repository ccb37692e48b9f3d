"""The cache key of embeddings."""

from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from nayer_core.contract.encoders import CLIP_FILE, CLIP_REPOSITORY, cached_clip_revisions
from tests.support.services import Services
from tests.worker.conftest import Submit
from tests.worker.fake_core import RESOLVED
from worker.claims.supervisor import Supervisor
from worker.flows.embed_labels import cache_key


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub home"))
    return tmp_path / "hub home"


def fetch_clip(hub_home: Path, revision: str) -> None:
    """Write the same files as the hub's library: a link to a body."""
    repository = hub_home / "hub" / f"models--{CLIP_REPOSITORY.replace('/', '--')}"
    body, link = repository / "blobs" / "abc", repository / "snapshots" / revision / CLIP_FILE
    for path in (body, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    body.write_bytes(b"weights")
    link.symlink_to(body)


def test_the_hubs_library_agrees_which_revisions_are_cached(hub_home: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    assert cached_clip_revisions(hub_home) == []
    fetch_clip(hub_home, "b" * 40)
    fetch_clip(hub_home, "a" * 40)
    assert cached_clip_revisions(hub_home) == ["a" * 40, "b" * 40]
    cache = hub_home / "hub"
    assert try_to_load_from_cache(CLIP_REPOSITORY, CLIP_FILE, cache, revision="a" * 40)


@pytest.mark.parametrize("cause", ["labels", "prompt", "weights", "cache"])
def test_the_cache_key_depends_on_all_that_the_embeddings_depend_on(
    settings: Settings, hub_home: Path, tmp_path: Path, cause: str
) -> None:
    before = cache_key(RESOLVED, settings)
    assert cache_key({**RESOLVED, "seed": 7}, settings) == before
    spec: dict[str, Any] = dict(RESOLVED)
    if cause == "labels":
        spec["labels"] = ["dog", "cat"]
    if cause == "prompt":
        spec["text_encoder"] = {**RESOLVED["text_encoder"], "prompt": "{label}"}
    if cause == "weights":
        (tmp_path / "clip").write_bytes(b"weights")
        settings = settings.model_copy(update={"clip_weights": tmp_path / "clip"})
    if cause == "cache":
        fetch_clip(hub_home, "a" * 40)
    assert cache_key(spec, settings) != before


def test_labels_are_embedded_again_when_the_weights_of_clip_arrive(
    service: Services, supervisor: Supervisor, submit: Submit, hub_home: Path
) -> None:
    def embeddings_of_a_job() -> str:
        job = service.clients.get(submit(inspect="no_embeddings"))
        supervisor.run_jobs("inspect")
        claim = service.workers.claim("distill", "tests")
        assert claim is not None
        assert claim.job.id == job.id
        return service.workers.inputs(claim)["lte.safetensors"].sha256

    first = embeddings_of_a_job()  # the fake `embed` writes other bytes each time
    assert embeddings_of_a_job() == first
    fetch_clip(hub_home, "a" * 40)
    assert embeddings_of_a_job() != first
