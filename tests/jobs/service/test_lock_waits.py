"""Calls that wait for another transaction's lock judge the job by what that transaction committed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from jobs.errors import DeliveryNotFound
from jobs.files.store import Storage
from jobs.rows import caches, held_jobs, outbox, repository
from jobs.rows.caches import Bank
from jobs.rows.database import Session
from jobs.service.transitions import endings
from jobs.states import JobStatus
from jobs.values.claims import StageResult
from jobs.webhooks.deliveries import Answer
from tests.support.jobs import a_file, a_spec, running, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")

GONE = Answer(status_code=410)
WAIT_SECONDS = 5.0


def wait_for_a_blocked_transaction(url: str) -> None:
    question = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + WAIT_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(question).fetchone() == (0,):
            assert time.monotonic() < deadline, "the call did not wait for the lock"
            time.sleep(0.01)


def call_behind(
    service: Services, url: str, first: Callable[[Session], object], call: Callable[[], Any]
) -> Any:
    """Make a call wait until another transaction, which began first, has committed."""
    with ThreadPoolExecutor(1) as pool:
        with service.resources.database.transaction() as session:
            first(session)
            session.flush()
            waiting = pool.submit(call)
            wait_for_a_blocked_transaction(url)
        return waiting.result()


def test_a_repeated_end_waits_for_the_first_and_agrees_with_it(service: Services, database_url: str) -> None:
    """As when the connection is cut while the server still commits the first call."""
    claim = running(service)

    def first(session: Session) -> None:
        row = held_jobs.lock_claimed(session, claim)
        endings.succeed(session, row, repository.now(session))

    job = call_behind(service, database_url, first, lambda: service.workers.end_stage(claim, StageResult()))
    assert job == service.clients.get(claim.job.id)
    assert job.status is JobStatus.SUCCEEDED


def test_a_receiver_that_is_gone_gets_no_message_of_a_step_under_way(
    service: Services, database_url: str
) -> None:
    spec = a_spec(webhook={"url": "https://example.com/", "events": ["job.running", "job.succeeded"]})
    claim = running(service, spec=spec)
    (due,) = service.webhooks.take_deliveries(10)

    def first(session: Session) -> None:
        row = held_jobs.lock_claimed(session, claim)
        endings.succeed(session, row, repository.now(session))

    call_behind(service, database_url, first, lambda: service.webhooks.settle_delivery(due, GONE))
    assert [d.status for d in service.clients.deliveries(claim.job.id)[0]] == ["failed", "failed"]


def test_a_step_after_the_receiver_is_gone_makes_no_message(service: Services, database_url: str) -> None:
    spec = a_spec(webhook={"url": "https://example.com/", "events": ["job.running", "job.succeeded"]})
    claim = running(service, spec=spec)
    (due,) = service.webhooks.take_deliveries(10)
    call_behind(
        service,
        database_url,
        lambda session: outbox.settle(session, due, GONE, 0.5),
        lambda: service.workers.end_stage(claim, StageResult()),
    )
    assert [d.event for d in service.clients.deliveries(claim.job.id)[0]] == ["job.running"]


def test_a_message_that_is_deleted_meanwhile_cannot_be_sent_again(
    service: Services, database_url: str
) -> None:
    spec = a_spec(webhook={"url": "https://example.com/"})
    job = service.clients.cancel(submitted(service, spec=spec).id)
    (due,) = service.webhooks.take_deliveries(10)
    with pytest.raises(DeliveryNotFound):
        call_behind(
            service,
            database_url,
            lambda session: repository.delete_job(session, job.id),
            lambda: service.clients.redeliver(job.id, due.id),
        )


def test_a_damaged_bank_is_dropped_once_and_its_successor_stays(service: Services, database_url: str) -> None:
    damaged_bank, whole_bank = Bank(a_file("banks/damaged"), "a"), Bank(a_file("banks/whole"), "b")
    with service.resources.database.transaction() as session:
        caches.save_bank(session, "key", damaged_bank)

    def first(session: Session) -> None:
        caches.drop_bank(session, "key", damaged_bank.file.sha256)
        session.flush()
        caches.save_bank(session, "key", whole_bank)

    call_behind(service, database_url, first, lambda: service.workers.drop_bank("key", damaged_bank))
    assert service.workers.use_bank("key") == whole_bank


def test_a_file_that_is_removed_during_a_sweep_is_not_missing(
    service: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another upkeep lets it go and sweeps it."""
    job = service.clients.cancel(submitted(service, uploads={"teacher": a_file("uploads/lost")}).id)
    longer = service.with_settings(keep_uploads_seconds=60)
    assert longer.upkeep.sweep(storage).missing_keys == ["uploads/lost"]
    exists = storage.exists

    def exists_after_deletion(key: str) -> bool:
        service.clients.delete(job.id)
        return exists(key)

    monkeypatch.setattr(storage, "exists", exists_after_deletion)
    assert longer.upkeep.sweep(storage).missing_keys == []
