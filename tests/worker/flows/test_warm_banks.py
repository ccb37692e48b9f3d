"""A warm-up is reused by the next job on the same teacher; a job never fails because of one."""

import uuid
from typing import Any

import pytest

from jobs.files.store import Storage
from jobs.states import JobStatus
from tests.support.services import Services
from tests.worker.conftest import Submit
from worker.claims.supervisor import Supervisor


@pytest.fixture
def work(service: Services, supervisor: Supervisor, submit: Submit) -> Any:
    """Submit a job whose core behaves as named, and run it; return it and its events by type."""

    of_this_test = uuid.uuid4().hex  # a teacher that no other test has

    def finish(**behaviours: str) -> tuple[Any, dict[str, list[dict[str, Any]]]]:
        job_id = submit(of_this_test=of_this_test, **behaviours)
        supervisor.run_jobs("inspect")
        supervisor.run_jobs("distill")
        job = service.clients.get(job_id)
        assert job.status is JobStatus.SUCCEEDED
        events: dict[str, list[dict[str, Any]]] = {}
        for event in service.clients.events(job_id, after=0, limit=1000):
            events.setdefault(event.type, []).append(event.data)
        return job, events

    return finish


def _bank_keys(storage: Storage) -> list[str]:
    return [entry.key for entry in storage.list() if entry.key.startswith("banks/")]


def test_the_next_job_on_the_teacher_reuses_the_bank_and_reports_it(work: Any) -> None:
    first, events = work(bank="reuse")
    assert "bank" not in events
    assert first.resolved.get("bank") is None
    second, events = work(bank="reuse")
    assert events["bank"][0]["made_by"] == first.id
    assert second.resolved["bank"] == {"sha256": events["bank"][0]["sha256"], "job": first.id}
    third, events = work(bank="reuse")  # the first one saved stays
    assert third.resolved["bank"]["job"] == first.id


def test_a_job_on_another_teacher_does_not_reuse_the_bank(work: Any) -> None:
    work(bank="reuse", distill="well")
    _, events = work(bank="reuse", distill="garbage")  # which is another file
    assert "bank" not in events


def test_a_job_without_reuse_bank_neither_takes_nor_saves_one(work: Any, storage: Storage) -> None:
    work()
    assert _bank_keys(storage) == []
    work(bank="reuse")
    assert len(_bank_keys(storage)) == 1


def test_a_lost_bank_is_made_again_with_a_warning(work: Any, storage: Storage) -> None:
    first, _ = work(bank="reuse")
    (key,) = _bank_keys(storage)
    storage.delete(key)
    second, events = work(bank="reuse")
    assert [warning["code"] for warning in events["warning"]] == ["bank_unusable"]
    assert first.id in events["warning"][0]["message"]
    third, _ = work(bank="reuse")
    assert third.resolved["bank"]["job"] == second.id
