"""How much memory a run may need is the operator's to say, and otherwise the machine's."""

import psutil
import pytest

from jobs.settings import Settings
from tests.support.services import Services
from tests.worker.conftest import FAKE_CORE, Submit
from worker.claims.supervisor import Supervisor
from worker.flows import FLOWS


@pytest.mark.parametrize(
    ("setting", "asked"), [(None, psutil.virtual_memory().total), (8_000_000_000, 8_000_000_000)]
)
def test_inspection_is_told_what_a_run_may_need(
    setting: int | None, asked: int, service: Services, settings: Settings, submit: Submit
) -> None:
    supervisor = Supervisor(settings.model_copy(update={"max_run_bytes": setting}), FLOWS, FAKE_CORE)
    try:
        job_id = submit()
        supervisor.run_jobs("inspect")
    finally:
        supervisor.close()
    report = service.clients.get(job_id).report
    assert report is not None
    assert int(report["asked"]["memory_bytes"]) == asked
