"""A setting decides how many processes share a distillation."""

import json

import pytest

from jobs.files.store import Storage
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.support.services import Services
from tests.worker.conftest import FAKE_CORE, Submit
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS


@pytest.mark.parametrize(("processes", "option"), [(1, None), (4, "4")])
def test_the_setting_for_sharing_reaches_the_program(
    service: Services,
    storage: Storage,
    settings: Settings,
    submit: Submit,
    processes: int,
    option: str | None,
) -> None:
    supervisor = Supervisor(settings.model_copy(update={"processes_per_job": processes}), FLOWS, FAKE_CORE)
    try:
        job_id = submit()
        supervisor.run_jobs("inspect")
        supervisor.run_jobs("distill")
    finally:
        supervisor.close()
    job = service.clients.get(job_id)
    assert job.status is JobStatus.SUCCEEDED
    file = next(artifact for artifact in job.artifacts if artifact.name == "model_card.json")
    card = json.loads(b"".join(storage.open_range(file.key)))
    assert card["options"].get("processes") == option
