"""Many workers, one job: which one holds it, what a lost claim may still do, how a job is handed back."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from jobs.errors import IdempotencyConflict, LeaseLost
from jobs.states import JobStatus
from jobs.values.claims import Claim, StageResult
from nayer_core.contract.events import WarningEvent
from tests.support.jobs import a_request, a_spec, an_artifact, claimed, inspected, running, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")

WARNING = WarningEvent(code="w", message="m")

# Everything a worker writes, by the queue of its claim.
WRITES: dict[str, list[Callable[[Services, Claim], Any]]] = {
    "inspect": [
        lambda service, claim: service.workers.record(claim, [(1, WARNING)]),
        lambda service, claim: service.workers.add_artifact(claim, an_artifact("report.json")),
        lambda service, claim: service.workers.inputs(claim),
        lambda service, claim: service.workers.end_stage(claim, StageResult()),
        lambda service, claim: service.workers.fail(claim, "c", "m", "h"),
        lambda service, claim: service.workers.cancel(claim),
        lambda service, claim: service.workers.release(claim, counts_attempt=True, reason="r"),
    ],
    "distill": [
        lambda service, claim: service.workers.record(claim, [(1, WARNING)]),
        lambda service, claim: service.workers.add_artifact(claim, an_artifact()),
        lambda service, claim: service.workers.inputs(claim),
        lambda service, claim: service.workers.end_stage(
            claim, StageResult(artifacts=[an_artifact()], metrics={"accuracy": 1.0})
        ),
        lambda service, claim: service.workers.fail(claim, "c", "m", "h"),
        lambda service, claim: service.workers.cancel(claim),
        lambda service, claim: service.workers.release(claim, counts_attempt=True, reason="r"),
    ],
}


def all_at_once(work: Callable[[int], Any], threads: int) -> list[Any]:
    start = threading.Barrier(threads)

    def one(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


def rows(url: str) -> list[Any]:
    """Everything the database holds about jobs."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()  # noqa: S608 - our own names
            for table in ("job", "event", "metric", "file")
        ]


def test_each_job_is_claimed_once_by_many_workers(service: Services) -> None:
    jobs = {submitted(service).id for _ in range(40)}

    def work(number: int) -> list[str]:
        job_ids = []
        while claim := service.workers.claim("inspect", f"worker {number}"):
            job_ids.append(claim.job.id)
        return job_ids

    claims = Counter(job_id for job_ids in all_at_once(work, 8) for job_id in job_ids)
    assert claims == Counter(jobs)


def test_only_one_of_many_ends_counts(service: Services) -> None:
    claim = running(service)
    ends = [
        lambda: service.workers.end_stage(claim, StageResult(artifacts=[an_artifact()])),
        lambda: service.workers.fail(claim, "c", "m", "h"),
        lambda: service.workers.cancel(claim),
        lambda: service.workers.release(claim, counts_attempt=False, reason="drained"),
    ]

    def end(number: int) -> str | None:
        try:
            return str(ends[number]().status)
        except LeaseLost:
            return None

    outcomes = [status for status in all_at_once(end, len(ends)) if status]
    assert outcomes == [service.clients.get(claim.job.id).status]


@pytest.mark.parametrize("queue", ["inspect", "distill"])
def test_nothing_is_written_under_a_stale_fence(service: Services, database_url: str, queue: str) -> None:
    stale = running(service) if queue == "distill" else claimed(service, "inspect", submitted(service))
    service.workers.release(stale, counts_attempt=False, reason="drained")
    fresh = claimed(service, queue, stale.job)
    before = rows(database_url)

    for write in WRITES[queue]:
        with pytest.raises(LeaseLost):
            write(service, stale)
    assert service.workers.heartbeat(stale).lost
    assert rows(database_url) == before
    assert fresh.fence == stale.fence + 1
    assert not service.workers.heartbeat(fresh).lost


@pytest.mark.parametrize("end", ["succeed", "fail", "cancelled"])
def test_nothing_is_written_after_the_end(service: Services, database_url: str, end: str) -> None:
    claim = running(service)
    {
        "succeed": lambda: service.workers.end_stage(claim, StageResult()),
        "fail": lambda: service.workers.fail(claim, "c", "m", "h"),
        "cancelled": lambda: service.workers.cancel(claim),
    }[end]()
    before = rows(database_url)

    for write in WRITES["distill"]:
        # The very call that ended the job may come again, when its commit was not heard of.
        try:
            write(service, claim)
        except LeaseLost:
            continue
    service.clients.cancel(claim.job.id)
    assert service.workers.heartbeat(claim).lost
    assert rows(database_url) == before


def test_nothing_is_written_while_a_job_waits_again(service: Services, database_url: str) -> None:
    claim = claimed(service, "inspect", submitted(service))
    service.workers.release(claim, counts_attempt=False, reason="drained")
    before = rows(database_url)
    for write in WRITES["inspect"]:
        try:
            write(service, claim)
        except LeaseLost:
            continue
    assert rows(database_url) == before


@pytest.mark.parametrize("queue", ["inspect", "distill"])
def test_a_repeated_end_changes_nothing(service: Services, database_url: str, queue: str) -> None:
    for settle in WRITES[queue][3:]:
        claim = running(service) if queue == "distill" else claimed(service, "inspect", submitted(service))
        first = settle(service, claim)
        before = rows(database_url)
        assert settle(service, claim) == first
        assert rows(database_url) == before
        if not first.is_terminal:
            service.clients.cancel(first.id)


def test_a_drain_costs_no_attempt_and_a_crash_does(service: Services) -> None:
    job = inspected(service)
    for _ in range(5):
        back = service.workers.release(
            claimed(service, "distill", job), counts_attempt=False, reason="drained"
        )
        assert (back.status, back.attempt) == (JobStatus.QUEUED, 1)
    back = service.workers.release(
        claimed(service, "distill", job), counts_attempt=True, reason="killed by signal 9"
    )
    assert (back.status, back.attempt) == (JobStatus.QUEUED, 2)
    assert service.clients.events(job.id)[-1].data == {
        "status": "queued",
        "attempt": 2,
        "reason": "killed by signal 9",
    }


@pytest.mark.parametrize("queue", ["inspect", "distill"])
def test_the_third_lost_attempt_is_the_last(service: Services, queue: Any) -> None:
    job = inspected(service) if queue == "distill" else submitted(service)
    for attempt in (1, 2, 3):
        assert service.clients.get(job.id).attempt == attempt
        job = service.workers.release(
            claimed(service, queue, job), counts_attempt=True, reason="killed by signal 9"
        )
    assert (job.status, job.attempt) == (JobStatus.FAILED, 3)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "killed by signal 9" in job.error["message"]


def test_a_waiting_job_is_cancelled_at_once(service: Services) -> None:
    for job in (inspected(service), submitted(service)):
        ended_job = service.clients.cancel(job.id)
        assert ended_job.status == JobStatus.CANCELLED
        assert service.clients.cancel(job.id) == ended_job
    assert service.workers.claim("distill", "tests") is None


def test_a_held_job_is_cancelled_by_its_worker(service: Services) -> None:
    claim = running(service)
    answer = service.clients.cancel(claim.job.id)
    assert (answer.status, answer.cancel_requested) == (JobStatus.RUNNING, True)
    assert service.clients.cancel(claim.job.id).version == answer.version

    assert service.workers.heartbeat(claim).cancel_requested
    assert service.workers.cancel(claim).status == JobStatus.CANCELLED


def test_a_released_job_with_a_request_to_cancel_is_cancelled(service: Services) -> None:
    claim = running(service)
    service.clients.cancel(claim.job.id)
    assert (
        service.workers.release(claim, counts_attempt=False, reason="drained").status == JobStatus.CANCELLED
    )


def test_cancelling_races_with_claiming_and_loses_nothing(service: Services) -> None:
    for _ in range(10):
        job = submitted(service)
        claim, answer = all_at_once(
            lambda number, job=job: (
                service.workers.claim("inspect", "w") if number == 0 else service.clients.cancel(job.id)
            ),
            2,
        )
        now = service.clients.get(job.id)
        if claim is None:
            assert now.status == JobStatus.CANCELLED
        else:
            assert (now.status, now.cancel_requested) == (JobStatus.VALIDATING, True)
            service.workers.cancel(claim)
        assert answer.cancel_requested or answer.status == JobStatus.CANCELLED


def test_only_one_of_a_simultaneous_cancel_and_end_counts(service: Services) -> None:
    for _ in range(10):
        claim = running(service)
        ended_job, answer = all_at_once(
            lambda number, claim=claim: (
                service.workers.end_stage(claim, StageResult())
                if number == 0
                else service.clients.cancel(claim.job.id)
            ),
            2,
        )
        assert ended_job.status == service.clients.get(claim.job.id).status == JobStatus.SUCCEEDED
        assert answer.status in (JobStatus.RUNNING, JobStatus.SUCCEEDED)


def test_events_have_no_gap_with_many_writers(service: Services) -> None:
    claim = running(service)

    def work(number: int) -> None:
        for round_ in range(10):
            if number % 2:
                service.workers.record(claim, [(number * 100 + round_, WARNING)])
            else:
                service.workers.add_artifact(claim, an_artifact("samples.png"))

    all_at_once(work, 6)
    events = service.clients.events(claim.job.id, limit=1000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(event.type == "warning" for event in events) == 30
    assert sum(event.type == "artifact" for event in events) == 30


def test_lines_that_many_write_at_once_appear_once(service: Services) -> None:
    claim = running(service)
    lines = [(number, WARNING) for number in range(1, 21)]
    all_at_once(lambda _: service.workers.record(claim, lines), 4)
    assert sum(event.type == "warning" for event in service.clients.events(claim.job.id)) == 20


def test_a_repeated_request_makes_one_job(service: Services) -> None:
    request = a_request(idempotency_key="key", request_hash="hash")
    answers = all_at_once(lambda _: service.clients.submit(request), 8)

    assert len({job.id for job, _ in answers}) == 1
    assert Counter(is_replay for _, is_replay in answers) == {False: 1, True: 7}
    assert len(service.clients.list_jobs().jobs) == 1


def test_a_key_belongs_to_one_request(service: Services) -> None:
    first, _ = service.clients.submit(a_request(idempotency_key="key", request_hash="one"))
    with pytest.raises(IdempotencyConflict, match=first.id):
        service.clients.submit(a_request(idempotency_key="key", request_hash="another"))
    assert len(service.clients.list_jobs().jobs) == 1

    service.clients.cancel(first.id)
    service.clients.delete(first.id)
    again, is_replay = service.clients.submit(a_request(idempotency_key="key", request_hash="another"))
    assert (again.id != first.id, is_replay) == (True, False)


def test_the_runtime_counts_under_claims_only(service: Services, database_url: str) -> None:
    claim = running(service, spec=a_spec(max_runtime_seconds=100))
    remaining = service.workers.heartbeat(claim).remaining_seconds
    assert remaining is not None
    assert 90 < remaining <= 100
    service.workers.release(claim, counts_attempt=False, reason="drained")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE job SET ran_seconds = 98, created_at = now() - interval '1 day'")
    remaining = service.workers.heartbeat(claimed(service, "distill", claim.job)).remaining_seconds
    assert remaining is not None
    assert 0 < remaining <= 2
    assert service.workers.heartbeat(running(service)).remaining_seconds is None
