"""Upkeep recovers from lost messages and workers, ends overdue jobs, and removes files without rows."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli.local.embedded import EmbeddedValkey
from jobs.errors import LeaseLost
from jobs.files.store import Storage
from jobs.kinds import VALIDATE
from jobs.states import JobStatus
from jobs.values.claims import StageResult
from jobs.values.files import StoredFile
from jobs.values.jobs import Job
from tests.support.jobs import a_file, a_spec, claimed, inspected, running, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture(autouse=True)
def _silent_broker(valkey: EmbeddedValkey) -> None:
    valkey.flush()


def change(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def let_leases_run_out(url: str) -> None:
    change(url, "UPDATE job SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")


def let_time_pass(url: str) -> None:
    change(url, "UPDATE job SET rung_at = now() - interval '31 seconds'")


def use_up(url: str, job_id: str, seconds: float) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE job SET ran_seconds = %s WHERE id = %s", [seconds, job_id])


def pending(service: Services) -> tuple[int | None, int | None]:
    return service.resources.doorbell.pending("inspect"), service.resources.doorbell.pending("distill")


def test_a_step_rings_for_the_queue_that_is_next(service: Services) -> None:
    inspected(service)
    assert pending(service) == (1, 1)
    submitted(service, kind=VALIDATE)
    assert pending(service) == (2, 1)
    service.workers.release(
        claimed(service, "distill", service.clients.list_jobs().jobs[1]), counts_attempt=False, reason="r"
    )
    assert pending(service) == (2, 2)


def test_a_lost_message_is_sent_again(service: Services, valkey: EmbeddedValkey, database_url: str) -> None:
    submitted(service)
    inspected_job = service.clients.list_jobs().jobs[0]
    valkey.flush()
    assert service.upkeep.ring_again() == 0, "it was rung for a moment ago"

    let_time_pass(database_url)
    assert service.upkeep.ring_again() == 1
    assert pending(service) == (1, 0)
    assert service.upkeep.ring_again() == 0
    assert service.clients.queue_positions([inspected_job]) == {inspected_job.id: 1}


def test_messages_do_not_pile_up_while_workers_are_busy(service: Services, database_url: str) -> None:
    for _ in range(5):
        submitted(service)
    for _ in range(3):
        let_time_pass(database_url)
        assert service.upkeep.ring_again() == 0
    assert pending(service) == (5, 0)


def test_a_job_submitted_without_a_broker_gets_its_message_later(
    service: Services, valkey: EmbeddedValkey
) -> None:
    valkey.kill()
    try:
        job = submitted(service)
        assert service.upkeep.ring_again() == 0
    finally:
        valkey.start()
    assert service.upkeep.ring_again() == 1
    assert pending(service) == (1, 0)
    assert service.clients.get(job.id).status == JobStatus.VALIDATING


@pytest.mark.parametrize("queue", ["inspect", "distill"])
def test_a_lost_worker_gives_its_job_to_another(service: Services, database_url: str, queue: Any) -> None:
    claim = running(service) if queue == "distill" else claimed(service, "inspect", submitted(service))
    assert service.upkeep.reap() == 0

    let_leases_run_out(database_url)
    assert service.workers.claim(queue, "tests") is None, "only the reaper frees an expired lease"
    assert service.upkeep.reap() == 1
    job = service.clients.get(claim.job.id)
    assert (job.status.queue, job.attempt, job.lease_until) == (queue, 2, None)
    with pytest.raises(LeaseLost):
        service.workers.cancel(claim)
    assert claimed(service, queue, job).fence == claim.fence + 1


def test_a_worker_that_comes_back_in_time_keeps_its_job(service: Services, database_url: str) -> None:
    claim = running(service)
    let_leases_run_out(database_url)
    assert not service.workers.heartbeat(claim).lost
    assert service.upkeep.reap() == 0


def test_a_job_that_crashes_three_workers_fails(service: Services, database_url: str) -> None:
    job = inspected(service)
    for _ in range(3):
        claimed(service, "distill", job)
        let_leases_run_out(database_url)
        assert service.upkeep.reap() == 1
    lost_job = service.clients.get(job.id)
    assert (lost_job.status, lost_job.attempt) == (JobStatus.FAILED, 3)
    assert lost_job.error is not None
    assert (lost_job.error["code"], lost_job.error["retryable"]) == ("worker_lost", True)


def test_a_lost_job_with_a_request_to_cancel_is_cancelled(service: Services, database_url: str) -> None:
    claim = running(service)
    service.clients.cancel(claim.job.id)
    let_leases_run_out(database_url)
    assert service.upkeep.reap() == 1
    assert service.clients.get(claim.job.id).status == JobStatus.CANCELLED


def test_a_lost_job_can_be_cancelled_before_the_reaper_comes(service: Services, database_url: str) -> None:
    claim = running(service)
    let_leases_run_out(database_url)
    assert service.clients.cancel(claim.job.id).status == JobStatus.CANCELLED
    assert service.workers.heartbeat(claim).lost


def test_many_reapers_take_a_job_once(service: Services, database_url: str) -> None:
    for _ in range(20):
        inspected(service)
    claims = [service.workers.claim("distill", "tests") for _ in range(20)]
    let_leases_run_out(database_url)
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: service.upkeep.reap(), range(4)))
    assert sum(counts) == 20
    assert {service.clients.get(claim.job.id).attempt for claim in claims if claim} == {2}


def test_a_job_over_its_time_limit_ends(service: Services, database_url: str) -> None:
    held_claim, held_long, waiting = (running(service, spec=a_spec(max_runtime_seconds=60)) for _ in range(3))
    service.workers.release(waiting, counts_attempt=False, reason="drained")
    assert service.upkeep.expire() == 0

    use_up(database_url, held_claim.job.id, seconds=61)
    use_up(database_url, held_long.job.id, seconds=61 + service.resources.settings.lease_seconds)
    use_up(database_url, waiting.job.id, seconds=61)
    assert service.upkeep.expire() == 2

    assert service.clients.get(held_claim.job.id).status == JobStatus.RUNNING, (
        "its worker has a lease's time to end it"
    )
    for claim in (held_long, waiting):
        ended_job = service.clients.get(claim.job.id)
        assert ended_job.error is not None
        assert (ended_job.status, ended_job.error["code"]) == (JobStatus.FAILED, "max_runtime_exceeded")
        assert service.workers.heartbeat(claim).lost


def put(storage: Storage, key: str) -> StoredFile:
    return storage.put_stream([key.encode()], key)


def keys(storage: Storage) -> list[str]:
    return sorted(entry.key for entry in storage.list())


def test_a_sweep_removes_files_without_a_row(service: Services, storage: Storage, tmp_path: Path) -> None:
    job = submitted(service, uploads={"teacher": put(storage, "uploads/teacher")})
    claim = claimed(service, "inspect", job)
    inputs = {"teacher.safetensors": put(storage, "inputs/teacher")}
    service.workers.end_stage(claim, StageResult(inputs=inputs))
    service.workers.save_embedding("k", put(storage, "embeddings/lte"))
    put(storage, "uploads/orphan")

    first_report = service.upkeep.sweep(storage)
    assert (first_report.removed_keys, first_report.missing_keys) == ([], [])
    report = service.upkeep.sweep(storage, grace_seconds=-1)
    assert sorted(report.removed_keys) == ["uploads/orphan", "uploads/teacher"]
    assert keys(storage) == ["embeddings/lte", "inputs/teacher"]


@pytest.mark.parametrize("end", ["fail", "cancelled"])
def test_a_job_that_failed_leaves_no_file(service: Services, storage: Storage, end: str) -> None:
    job = submitted(
        service, uploads={"teacher": put(storage, "uploads/t"), "evaluation": put(storage, "uploads/e")}
    )
    claim = claimed(service, "inspect", job)
    ended_job: Job = (
        service.workers.fail(claim, "c", "m", "h") if end == "fail" else service.workers.cancel(claim)
    )

    service.upkeep.sweep(storage, grace_seconds=-1)
    assert keys(storage) == []
    assert (ended_job.uploads["teacher"].bytes, ended_job.uploads["teacher"].key) == (
        job.uploads["teacher"].bytes,
        "uploads/t",
    )


def test_a_file_that_another_job_needs_stays(service: Services, storage: Storage) -> None:
    teacher = put(storage, "uploads/shared")
    first, second = (
        submitted(service, uploads={"teacher": teacher}),
        submitted(service, uploads={"teacher": teacher}),
    )
    service.clients.cancel(first.id)
    assert service.upkeep.sweep(storage, grace_seconds=-1).removed_keys == []
    service.clients.cancel(second.id)
    assert service.upkeep.sweep(storage, grace_seconds=-1).removed_keys == ["uploads/shared"]


def test_a_row_whose_file_is_gone_is_reported(service: Services, storage: Storage) -> None:
    submitted(service, uploads={"teacher": a_file("uploads/lost")})
    assert service.upkeep.sweep(storage).missing_keys == ["uploads/lost"]


def test_statistics_count_waiting_and_lost_jobs(service: Services, database_url: str) -> None:
    nothing = service.clients.statistics()
    assert set(nothing.counts) == set(JobStatus)
    assert (sum(nothing.counts.values()), nothing.expired_leases) == (0, 0)

    running(service)
    inspected(service)
    submitted(service)
    let_leases_run_out(database_url)
    change(database_url, "UPDATE job SET created_at = now() - interval '1 hour' WHERE status = 'queued'")
    statistics = service.clients.statistics()
    assert {status: count for status, count in statistics.counts.items() if count} == {
        JobStatus.VALIDATING: 1,
        JobStatus.QUEUED: 1,
        JobStatus.RUNNING: 1,
    }
    assert statistics.oldest_waiting_seconds["distill"] >= 3600 > statistics.oldest_waiting_seconds["inspect"]
    assert statistics.expired_leases == 1
