"""Messages to web hooks are written with the step that they report, and are tried for a limited time."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from jobs.errors import DeliveryNotFound, JobNotFound
from jobs.kinds import VALIDATE
from jobs.values.claims import StageResult
from jobs.values.jobs import Job
from jobs.webhooks.deliveries import MAX_ATTEMPTS, Answer, DueDelivery, retry_delay
from tests.support.hooked_jobs import make_due
from tests.support.jobs import QUALITY, a_request, a_spec, an_artifact, claimed, inspected, running, submitted
from tests.support.receiver import SECRET, SECRET_TEXTS
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")

URL = "https://example.com/hook"
ALL = ["job.queued", "job.running", "job.paused", "job.succeeded", "job.failed", "job.cancelled"]


def with_webhook(*events: str, **more: Any) -> dict[str, Any]:
    """Options of a submission with a web hook."""
    webhook = {"url": URL, "secret": SECRET, **({"events": events} if events else {}), **more}
    return {"spec": a_spec(webhook=webhook, metadata={"team": "vision"})}


def an_ended_job(service: Services) -> tuple[Job, DueDelivery]:
    job = service.clients.cancel(submitted(service, **with_webhook()).id)
    (due,) = service.webhooks.take_deliveries(10)
    return job, due


def event_names(service: Services, job_id: str) -> list[str]:
    return [delivery.event for delivery in reversed(service.clients.deliveries(job_id)[0])]


def test_messages_report_each_step_in_order(service: Services) -> None:
    claim = running(service, **with_webhook(*ALL))
    service.workers.release(claim, counts_attempt=False, reason="a drain")
    service.clients.pause(claim.job.id)
    service.clients.resume(claim.job.id)
    service.workers.end_stage(
        claimed(service, "distill", claim.job),
        StageResult(artifacts=[an_artifact()], metrics={"agreement": 0.5}),
    )
    steps = ["queued", "running", "queued", "paused", "queued", "running", "succeeded"]
    assert event_names(service, claim.job.id) == [f"job.{step}" for step in steps]


def test_a_message_reports_the_end_whether_client_worker_or_upkeep_ends_the_job(
    service: Services, database_url: str
) -> None:
    cancelled_job = service.clients.cancel(submitted(service, **with_webhook()).id)
    failed_job = service.workers.fail(
        running(service, **with_webhook()), "diverged", "It diverged.", "Lower the rate."
    )
    validation = submitted(service, kind=VALIDATE, **with_webhook())
    service.workers.end_stage(claimed(service, "inspect", validation), StageResult())
    lost_job = running(service, **with_webhook()).job
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE job SET attempt = 3 WHERE id = %s", [lost_job.id])
        connection.execute("UPDATE job SET lease_until = now() - interval '1 s' WHERE id = %s", [lost_job.id])
    service.upkeep.reap()
    overdue_job = submitted(service, spec=a_spec(webhook={"url": URL}, max_runtime_seconds=1))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE job SET ran_seconds = 5 WHERE id = %s", [overdue_job.id])
    service.upkeep.expire()
    ends = [
        event_names(service, job.id) for job in (cancelled_job, failed_job, validation, lost_job, overdue_job)
    ]
    assert ends == [["job.cancelled"], ["job.failed"], ["job.succeeded"], ["job.failed"], ["job.failed"]]


def test_a_job_without_a_web_hook_has_no_messages(service: Services) -> None:
    job = service.clients.cancel(submitted(service).id)
    assert service.clients.deliveries(job.id) == ([], False)
    assert service.webhooks.take_deliveries(10) == []


def test_a_step_that_is_rolled_back_leaves_no_message(
    service: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = running(service, **with_webhook())

    def cut(*_: object) -> None:
        raise ConnectionAbortedError

    with monkeypatch.context() as patch:
        patch.setattr("jobs.service.for_workers.repository.save", cut)
        with pytest.raises(ConnectionAbortedError):
            service.workers.end_stage(claim, StageResult())
    assert (service.clients.get(claim.job.id).status, event_names(service, claim.job.id)) == ("running", [])
    service.workers.end_stage(claim, StageResult())
    service.workers.end_stage(claim, StageResult())  # a repeated call, because its answer was lost
    assert event_names(service, claim.job.id) == ["job.succeeded"]


def test_a_message_contains_the_job_at_the_time_of_its_step(service: Services) -> None:
    claim = running(service, **with_webhook("job.running", "job.succeeded"))
    artifact = an_artifact()
    job = service.workers.end_stage(
        claim, StageResult(artifacts=[artifact], metrics={"agreement": 0.5}, quality=QUALITY)
    )
    first, second = (json.loads(due.content) for due in service.webhooks.take_deliveries(10))
    assert (first["type"], first["data"]["status"], first["data"]["finished_at"]) == (
        "job.running",
        "running",
        None,
    )
    assert job.started_at is not None
    assert job.finished_at is not None
    assert second == {
        "type": "job.succeeded",
        "timestamp": job.finished_at.isoformat(),
        "data": {
            "id": job.id,
            "status": "succeeded",
            "kind": "distill",
            "dry_run": False,
            "attempt": 1,
            "error": None,
            "metrics": {"latest": {"agreement": 0.5}},
            "quality": QUALITY,
            "artifacts": [{"name": artifact.name, "bytes": artifact.bytes, "sha256": artifact.sha256}],
            "metadata": {"team": "vision"},
            "created_at": job.created_at.isoformat(),
            "started_at": job.started_at.isoformat(),
            "finished_at": job.finished_at.isoformat(),
        },
    }


def test_a_message_is_taken_by_one_sender(service: Services) -> None:
    jobs = [service.clients.cancel(submitted(service, **with_webhook()).id) for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        messages = [
            due
            for batch in pool.map(lambda _: service.webhooks.take_deliveries(5), range(8))
            for due in batch
        ]
    assert sorted(due.job_id for due in messages) == sorted(job.id for job in jobs)
    assert service.webhooks.take_deliveries(100) == []


def test_an_unsettled_message_is_due_again_under_its_id(service: Services, database_url: str) -> None:
    job, first = an_ended_job(service)
    assert service.webhooks.take_deliveries(10) == []
    make_due(database_url)
    (again,) = service.webhooks.take_deliveries(10)
    assert (again.id, again.content, again.attempt) == (first.id, first.content, 2)
    service.webhooks.settle_delivery(first, Answer(status_code=410))  # comes too late to say anything
    assert service.clients.deliveries(job.id)[0][0].last_status_code is None
    service.webhooks.settle_delivery(again, Answer(status_code=204))
    service.webhooks.settle_delivery(again, Answer(status_code=500))
    (delivery,) = service.clients.deliveries(job.id)[0]
    assert (delivery.status, delivery.attempts, delivery.last_status_code) == ("delivered", 2, 204)
    assert delivery.delivered_at is not None
    assert delivery.next_attempt_at is None


def test_a_message_that_is_not_accepted_is_tried_ten_times(service: Services, database_url: str) -> None:
    job, due = an_ended_job(service)
    waits = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert due.attempt == attempt
        service.webhooks.settle_delivery(
            due, Answer(status_code=500) if attempt % 2 else Answer(error="timeout")
        )
        (delivery,) = service.clients.deliveries(job.id)[0]
        if delivery.next_attempt_at is not None:
            assert delivery.status == "pending"
            waits.append(delivery.next_attempt_at - due.taken_at)
            make_due(database_url)
            (due,) = service.webhooks.take_deliveries(10)
    assert (delivery.status, delivery.attempts, delivery.last_error) == ("failed", 10, "timeout")
    assert len(waits) == MAX_ATTEMPTS - 1
    assert waits == sorted(waits)
    make_due(database_url)
    assert service.webhooks.take_deliveries(10) == []


def test_attempts_spread_over_about_a_day() -> None:
    for chance in (0.0, 0.5, 0.999):
        delays = [retry_delay(attempts, chance) for attempts in range(1, MAX_ATTEMPTS)]
        total = sum((delay for delay in delays if delay), timedelta())
        assert all(delays)
        assert timedelta(hours=20) < total < timedelta(hours=34)
    assert retry_delay(MAX_ATTEMPTS, 0.5) is None
    assert retry_delay(1, 0.5) == retry_delay(1, 0.5, timedelta(seconds=3)) == timedelta(seconds=10)
    assert retry_delay(1, 0.5, timedelta(hours=2)) == timedelta(hours=2)
    assert retry_delay(1, 0.5, timedelta(days=400)) == timedelta(days=1)


def test_a_receiver_that_is_gone_gets_no_more_messages(service: Services) -> None:
    claim = running(service, **with_webhook(*ALL))
    other = service.clients.cancel(submitted(service, **with_webhook()).id)
    first, second, third = service.webhooks.take_deliveries(10)
    assert third.job_id == other.id
    service.webhooks.settle_delivery(second, Answer(status_code=410))
    service.webhooks.settle_delivery(first, Answer(status_code=204))
    service.workers.end_stage(claim, StageResult())
    deliveries = service.clients.deliveries(claim.job.id)[0]
    assert [(d.event, d.status) for d in deliveries] == [("job.running", "failed"), ("job.queued", "failed")]
    assert service.clients.deliveries(other.id)[0][0].status == "pending"


@pytest.mark.parametrize("answer", [Answer(status_code=204), Answer(status_code=410)])
def test_a_message_can_be_sent_once_more(service: Services, answer: Answer) -> None:
    job, due = an_ended_job(service)
    service.webhooks.settle_delivery(due, answer)
    delivery = service.clients.redeliver(job.id, due.id)
    assert (delivery.id, delivery.status, delivery.delivered_at) == (due.id, "pending", None)
    assert service.clients.redeliver(job.id, due.id).status == "pending"
    (again,) = service.webhooks.take_deliveries(10)
    assert (again.id, again.attempt, again.content) == (due.id, 2, due.content)
    service.webhooks.settle_delivery(again, Answer(status_code=200))
    assert service.clients.deliveries(job.id)[0][0].status == "delivered"


def test_messages_are_listed_in_pages_for_their_job_only(service: Services) -> None:
    claim = running(service, **with_webhook(*ALL))
    service.workers.end_stage(claim, StageResult())
    newest, more = service.clients.deliveries(claim.job.id, limit=2)
    oldest, last = service.clients.deliveries(claim.job.id, limit=2, after=newest[-1].id)
    assert [d.event for d in newest + oldest] == ["job.succeeded", "job.running", "job.queued"]
    assert (more, last) == (True, False)
    other = inspected(service)
    for delivery_id in (newest[0].id, "msg_" + "0" * 32, "\0", ""):
        with pytest.raises(DeliveryNotFound):
            service.clients.redeliver(other.id, delivery_id)
    with pytest.raises(JobNotFound):
        service.clients.deliveries("0" * 32)
    with pytest.raises(JobNotFound):
        service.clients.redeliver("nothing", newest[0].id)


def test_messages_are_deleted_with_their_job(service: Services, database_url: str) -> None:
    job, due = an_ended_job(service)
    service.clients.delete(job.id)
    service.webhooks.settle_delivery(due, Answer(status_code=500))
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM delivery").fetchone() == (0,)


def test_only_the_sender_reads_the_secret(service: Services, database_url: str) -> None:
    job, due = an_ended_job(service)
    assert due.secret == SECRET
    values = [
        job,
        service.clients.list_jobs(),
        service.clients.events(job.id),
        service.clients.deliveries(job.id),
        due,
        due.content,
    ]
    values += [a_request(**with_webhook()), service.clients.get(job.id).spec["webhook"]]
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE job SET webhook_secret = NULL")
        for table in ("job", "event", "delivery"):
            rows = connection.execute(f"SELECT to_json(t)::text FROM {table} AS t")  # noqa: S608 - no input
            values += rows.fetchall()
        connection.rollback()
    assert not any(text in str(values) for text in SECRET_TEXTS)


def test_statistics_count_messages_by_state(service: Services) -> None:
    job, due = an_ended_job(service)
    assert service.clients.statistics().deliveries == {"pending": 1, "delivered": 0, "failed": 0}
    service.webhooks.settle_delivery(due, Answer(status_code=410))
    assert service.clients.statistics().deliveries == {"pending": 0, "delivered": 0, "failed": 1}
    service.clients.delete(job.id)
