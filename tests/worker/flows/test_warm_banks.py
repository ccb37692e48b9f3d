"""Warm-ups go from one job to the next on the same teacher, and never stand in a job's way."""

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
    """Submit a job with these wishes and work it off; returns it and its events by type."""

    of_this_test = uuid.uuid4().hex  # a teacher that no other test has

    def finish(**wishes: str) -> tuple[Any, dict[str, list[dict[str, Any]]]]:
        job_id = submit(of_this_test=of_this_test, **wishes)
        supervisor.work_off("inspect")
        supervisor.work_off("distill")
        job = service.clients.get(job_id)
        assert job.status is JobStatus.SUCCEEDED
        told: dict[str, list[dict[str, Any]]] = {}
        for event in service.clients.events(job_id, after=0, limit=1000):
            told.setdefault(event.type, []).append(event.data)
        return job, told

    return finish


def _lying_in(storage: Storage) -> list[str]:
    return [entry.key for entry in storage.list() if entry.key.startswith("banks/")]


def test_the_next_job_on_the_teacher_begins_with_the_bank_and_says_so(work: Any) -> None:
    first, told = work(bank="wanted")
    assert "bank" not in told
    assert first.resolved.get("bank") is None
    second, told = work(bank="wanted")
    assert told["bank"][0]["made_by"] == first.id
    assert second.resolved["bank"] == {"sha256": told["bank"][0]["sha256"], "job": first.id}
    third, told = work(bank="wanted")  # the first one saved stays
    assert third.resolved["bank"]["job"] == first.id


def test_another_teacher_does_not_get_it(work: Any) -> None:
    work(bank="wanted", distill="well")
    _, told = work(bank="wanted", distill="garbage")  # which is another file
    assert "bank" not in told


def test_who_did_not_ask_neither_takes_nor_leaves_one(work: Any, storage: Storage) -> None:
    work()
    assert _lying_in(storage) == []
    work(bank="wanted")
    assert len(_lying_in(storage)) == 1


def test_a_lost_bank_costs_a_warning_and_is_made_anew(work: Any, storage: Storage) -> None:
    first, _ = work(bank="wanted")
    (key,) = _lying_in(storage)
    storage.delete(key)
    second, told = work(bank="wanted")
    assert [warning["code"] for warning in told["warning"]] == ["bank_unusable"]
    assert first.id in told["warning"][0]["message"]
    third, _ = work(bank="wanted")
    assert third.resolved["bank"]["job"] == second.id
