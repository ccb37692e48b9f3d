"""Messages are signed and arrive at least once, over real connections."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.errors import ServiceUnavailable
from jobs.settings import Settings
from tests.support.hooked_jobs import delete_messages, ended, make_due, only
from tests.support.receiver import SECRET, SECRET_TEXTS, Receiver, dripping, receiving
from tests.support.services import Services
from worker import webhooks
from worker.webhooks import Courier


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Receivers of tests are on this machine."""
    return settings.model_copy(update={"webhook_private_addresses": True})


@pytest.fixture(autouse=True)
def _no_other_messages(database_url: str) -> None:
    delete_messages(database_url)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def courier(service: Services) -> Courier:
    return Courier(service.webhooks)


def test_a_message_arrives_signed(service: Services, courier: Courier, receiver: Receiver) -> None:
    job_id = ended(service, receiver.url)
    assert courier.round() == 1
    (message,) = receiver.received
    assert message.path == "/hook"
    assert message.headers["content-type"] == "application/json"
    assert message.headers["user-agent"].startswith("nayer/")
    document = Webhook(SECRET).verify(message.body, message.headers)
    assert (document["type"], document["data"]["id"]) == ("job.cancelled", job_id)

    # The same by hand, as the standard has it.
    content = (
        f"{message.headers['webhook-id']}.{message.headers['webhook-timestamp']}.".encode() + message.body
    )
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    by_hand = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert message.headers["webhook-signature"] == f"v1,{by_hand}"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(message.body.replace(b"cancelled", b"succeeded"), message.headers)

    delivery = only(service, job_id)
    assert delivery.id == message.headers["webhook-id"]
    assert (delivery.status, delivery.attempts, delivery.last_status_code) == ("delivered", 1, 204)
    assert courier.round() == 0


def test_without_a_secret_a_message_is_not_signed(
    service: Services, courier: Courier, receiver: Receiver
) -> None:
    ended(service, receiver.url, secret=None)
    courier.round()
    (message,) = receiver.received
    assert "webhook-signature" not in message.headers
    assert message.headers["webhook-id"].startswith("msg_")


def test_a_failed_message_is_sent_again_under_its_id_with_a_new_signature(
    service: Services, courier: Courier, receiver: Receiver, settings: Settings
) -> None:
    receiver.answers = [500, 404, 302]
    receiver.headers = [(b"location", receiver.url.replace("hook", "elsewhere").encode())]
    job_id = ended(service, receiver.url)
    for status in (500, 404, 302):
        assert courier.round() == 1
        delivery = only(service, job_id)
        assert (delivery.status, delivery.last_status_code) == ("pending", status)
        assert courier.round() == 0
        make_due(settings.database_url)
    courier.round()
    assert only(service, job_id).status == "delivered"
    assert {message.path for message in receiver.received} == {"/hook"}
    assert len({message.headers["webhook-id"] for message in receiver.received}) == 1
    assert len({message.body for message in receiver.received}) == 1
    for message in receiver.received:
        Webhook(SECRET).verify(message.body, message.headers)


def test_an_answer_of_410_ends_the_attempts(
    service: Services, courier: Courier, receiver: Receiver, settings: Settings
) -> None:
    receiver.status = 410
    job_id = ended(service, receiver.url)
    courier.round()
    delivery = only(service, job_id)
    assert (delivery.status, delivery.last_status_code, delivery.next_attempt_at) == ("failed", 410, None)


@pytest.mark.parametrize(
    ("header", "waits"), [(b"3600", 3600), (b"9" * 9, 86400), (b"soon", 10), (b"-5", 10)]
)
def test_retry_after_of_a_receiver_is_respected(
    service: Services, courier: Courier, receiver: Receiver, header: bytes, waits: int
) -> None:
    receiver.status, receiver.headers = 503, [(b"retry-after", header)]
    job_id = ended(service, receiver.url)
    courier.round()
    delivery = only(service, job_id)
    assert delivery.next_attempt_at is not None
    pause_seconds = (delivery.next_attempt_at - delivery.created_at).total_seconds()
    assert 0.8 * waits <= pause_seconds <= 1.2 * waits + 60


def test_the_body_of_an_answer_is_not_read(service: Services, courier: Courier, receiver: Receiver) -> None:
    receiver.endless_body = True
    job_id = ended(service, receiver.url)
    courier.round()
    assert only(service, job_id).status == "delivered"


def test_a_silent_receiver_times_out(
    service: Services, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 0.5)

    async def hang() -> None:
        await asyncio.sleep(3)

    with dripping() as slow, receiving(Receiver(before=hang)) as silent:
        job_ids = [ended(service, slow), ended(service, silent.url)]
        assert courier.round() == 2
    assert [only(service, job_id).last_error for job_id in job_ids] == ["timeout", "timeout"]


def test_two_senders_send_each_message_once(service: Services, receiver: Receiver) -> None:
    job_ids = [ended(service, receiver.url) for _ in range(30)]
    couriers, stop = [Courier(service.webhooks), Courier(service.webhooks)], threading.Event()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(courier.deliver, stop) for courier in couriers]:
            future.result()
    assert sorted(message.document()["data"]["id"] for message in receiver.received) == sorted(job_ids)
    assert {only(service, job_id).status for job_id in job_ids} == {"delivered"}


def test_a_message_whose_answer_was_not_saved_is_sent_twice(
    service: Services,
    courier: Courier,
    receiver: Receiver,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when upkeep is killed, or the database goes away, between the answer and the row."""

    def away(*_: object) -> None:
        raise ServiceUnavailable("database", "cut")

    job_id = ended(service, receiver.url)
    with monkeypatch.context() as patch:
        patch.setattr(service.webhooks, "settle_delivery", away)
        courier.round()
    assert only(service, job_id).status == "pending"
    assert courier.round() == 0, "it belongs to the sender that is gone, for a minute"
    make_due(settings.database_url)
    courier.round()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert only(service, job_id).status == "delivered"


def test_a_bug_with_one_message_does_not_stop_the_others(
    service: Services, courier: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = ended(service, "http://bad.test/"), ended(service, receiver.url)
    whole = courier._call

    async def call(due: Any, url: Any) -> Any:
        if url.host == "bad.test":
            raise RuntimeError("a bug")
        return await whole(due, url)

    monkeypatch.setattr(courier, "_call", call)
    courier.round()
    assert (only(service, bad).status, only(service, good).status) == ("pending", "delivered")


def test_logs_contain_neither_secret_nor_url(
    service: Services, courier: Courier, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "worker")
    caplog.set_level(logging.INFO)
    job_id = ended(service, receiver.url)
    courier.round()
    assert f"job.cancelled of job {job_id}, attempt 1: 204" in caplog.text
    assert not any(text in caplog.text for text in (*SECRET_TEXTS, "token=1", "/hook", "v1,"))
    assert json.loads(receiver.received[0].body)["data"]["id"] == job_id
