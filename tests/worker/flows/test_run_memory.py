"""The memory limit of a run is a setting; without one it is the memory of the machine."""

import psutil
import pytest

from jobs.settings import Settings
from tests.support.services import Services
from tests.worker.conftest import FAKE_CORE, Submit
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS


@pytest.mark.parametrize(
    ("setting", "expected"), [(None, psutil.virtual_memory().total), (8_000_000_000, 8_000_000_000)]
)
def test_inspection_gets_the_memory_limit_of_a_run(
    setting: int | None, expected: int, service: Services, settings: Settings, submit: Submit
) -> None:
    supervisor = Supervisor(settings.model_copy(update={"max_run_bytes": setting}), FLOWS, FAKE_CORE)
    try:
        job_id = submit()
        supervisor.run_jobs("inspect")
    finally:
        supervisor.close()
    report = service.clients.get(job_id).report
    assert report is not None
    assert int(report["limits"]["memory_bytes"]) == expected
