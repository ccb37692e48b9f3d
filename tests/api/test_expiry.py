"""Artifacts after their retention time: still listed, and answered with 410."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from jobs.files.store import Storage
from jobs.settings import Settings
from tests.api.conftest import PlayedWorker, assert_problem
from tests.support.services import Services


def test_an_expired_artifact_is_410_and_stays_listed(
    submit: Callable[..., str],
    client: httpx.Client,
    worker: PlayedWorker,
    settings: Settings,
    service: Services,
) -> None:
    job_id = submit()
    worker.finish(worker.start(job_id))
    before = client.get(f"/jobs/{job_id}")
    service.with_settings(keep_artifacts_seconds=1e-6).upkeep.retain()
    for path in ("student", "artifacts/model_card.json"):
        assert_problem(client.get(f"/jobs/{job_id}/{path}"), 410, "artifact_expired")
    assert client.head(f"/jobs/{job_id}/student").status_code == 410
    after = client.get(f"/jobs/{job_id}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["artifacts"] == before.json()["artifacts"]
    assert "student" not in after.json()["links"]


@pytest.mark.parametrize(
    ("end", "status", "code"), [("delete", 404, "job_not_found"), ("expire", 410, "artifact_expired")]
)
def test_a_file_removed_during_its_download_is_404_or_410(
    submit: Callable[..., str],
    client: httpx.Client,
    worker: PlayedWorker,
    settings: Settings,
    service: Services,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    status: int,
    code: str,
) -> None:
    job_id = submit()
    worker.finish(worker.start(job_id))
    stream = Storage.stream_async

    async def stream_after_removal(storage: Storage, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        if end == "delete":
            service.clients.delete(job_id)
        else:
            service.with_settings(keep_artifacts_seconds=1e-6).upkeep.retain()
        storage.delete(key)
        async for piece in stream(storage, key, start, stop):
            yield piece

    monkeypatch.setattr(Storage, "stream_async", stream_after_removal)
    assert_problem(client.get(f"/jobs/{job_id}/student"), status, code)
