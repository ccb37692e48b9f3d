"""What is left of artifacts that were kept for their time."""

from collections.abc import Callable

import httpx

from jobs import upkeep
from jobs.service import JobService
from jobs.settings import Settings
from tests.api.conftest import PlayedWorker, assert_problem


def test_an_artifact_that_is_no_longer_kept_is_gone_but_told(
    submit: Callable[..., str],
    client: httpx.Client,
    worker: PlayedWorker,
    settings: Settings,
    service: JobService,
) -> None:
    job_id = submit()
    worker.finish(worker.start(job_id))
    before = client.get(f"/jobs/{job_id}")
    moment = settings.model_copy(update={"keep_artifacts_seconds": 1e-6})
    upkeep.retain(JobService(service.database, service.doorbell, moment))
    for path in ("student", "artifacts/model_card.json"):
        assert_problem(client.get(f"/jobs/{job_id}/{path}"), 410, "artifact_expired")
    assert client.head(f"/jobs/{job_id}/student").status_code == 410
    after = client.get(f"/jobs/{job_id}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["artifacts"] == before.json()["artifacts"]
    assert "student" not in after.json()["links"]
