"""Messages reach only their receiver: names, addresses, certificates, proxies."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trustme

from jobs.settings import Settings
from tests.support.hooked_jobs import delete_messages, ended, only
from tests.support.receiver import Receiver, receiving, trusting
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
def strict_service(service: Services) -> Services:
    """The service with its default settings for addresses: only public ones are allowed."""
    return service.with_settings(webhook_private_addresses=False)


class Names:
    """A resolver with prepared answers, which notes each request."""

    def __init__(self, *answers: Sequence[str]):
        self.answers = list(answers)
        self.requests: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.requests.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_closed_port_and_an_unknown_name_have_errors_of_their_own(service: Services) -> None:
    nowhere, nameless = ended(service, "http://receiver.test:9/"), ended(service, "https://nobody.test/")

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host == "nobody.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["127.0.0.1"]

    Courier(service.webhooks, resolve=resolve).round()
    assert only(service, nowhere).last_error == "connection_failed"
    assert only(service, nameless).last_error == "unresolvable"


def test_addresses_come_from_the_resolver_of_the_system() -> None:
    assert asyncio.run(webhooks.resolve("127.0.0.1", 80)) == ["127.0.0.1"]
    assert "127.0.0.1" in asyncio.run(webhooks.resolve("localhost", 80))


def test_private_addresses_are_called_only_where_the_operator_allows_it(
    service: Services, receiver: Receiver, strict_service: Services
) -> None:
    job_id = ended(service, receiver.url)
    Courier(strict_service.webhooks).round()
    assert only(service, job_id).last_error == "address_refused"
    assert receiver.received == []


@pytest.mark.parametrize("addresses", [["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1"]])
def test_one_private_address_among_many_is_enough_to_refuse(
    service: Services, receiver: Receiver, strict_service: Services, addresses: list[str]
) -> None:
    job_id = ended(service, f"http://receiver.test:{receiver.port}/")
    Courier(strict_service.webhooks, resolve=Names(addresses)).round()
    assert only(service, job_id).last_error == "address_refused"
    assert receiver.received == []


def test_each_attempt_checks_the_address_that_it_connects_to(service: Services, receiver: Receiver) -> None:
    """Here 127.0.0.1 plays a public address, and 127.0.0.2 a private one."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    courier = Courier(service.webhooks, permits=lambda address: address == "127.0.0.1", resolve=names)
    with receiving(Receiver()) as inside:
        first = ended(service, f"http://receiver.test:{receiver.port}/hook")
        courier.round()
        assert names.requests == [("receiver.test", receiver.port)]
        second = ended(service, f"http://receiver.test:{inside.port}/hook")
        courier.round()
        assert inside.received == []
    assert only(service, first).status == "delivered"
    assert receiver.received[0].headers["host"] == f"receiver.test:{receiver.port}"
    assert only(service, second).last_error == "address_refused"


def test_the_next_address_is_tried_where_one_does_not_answer(service: Services, receiver: Receiver) -> None:
    job_id = ended(service, f"http://receiver.test:{receiver.port}/hook")
    Courier(service.webhooks, resolve=Names(["127.0.0.3", "127.0.0.1"])).round()
    assert only(service, job_id).status == "delivered"


def test_a_certificate_is_checked_against_the_name(service: Services, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "receiver.pem"
    authority.issue_cert("receiver.test").private_key_and_cert_chain_pem.write_to_path(certificate)
    with receiving(Receiver(), certificate) as secure:
        right = ended(service, f"https://receiver.test:{secure.port}/")
        wrong = ended(service, f"https://other.test:{secure.port}/")
        by_address = ended(service, secure.url)
        Courier(service.webhooks, resolve=Names(["127.0.0.1"]), tls=trusting(authority)).round()
        assert len(secure.received) == 1
        stranger = ended(service, f"https://receiver.test:{secure.port}/")
        Courier(service.webhooks, resolve=Names(["127.0.0.1"])).round()
        assert len(secure.received) == 1
    assert only(service, right).status == "delivered"
    for job_id in (wrong, by_address, stranger):
        assert only(service, job_id).last_error == "connection_failed"


def test_proxies_of_the_environment_are_not_used(
    service: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    job_id = ended(service, receiver.url)
    Courier(service.webhooks).round()
    assert only(service, job_id).status == "delivered"


def test_slow_name_resolution_does_not_delay_other_messages(
    service: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS", 1)

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host == "hanging.test":
            await asyncio.to_thread(threading.Event().wait, 2)
        return await asyncio.to_thread(lambda: ["127.0.0.1"])

    hanging = [ended(service, "http://hanging.test/") for _ in range(webhooks.BATCH - 1)]
    job_id = ended(service, receiver.url)
    assert Courier(service.webhooks, resolve=resolve).round() == webhooks.BATCH
    assert only(service, job_id).status == "delivered"
    assert {only(service, late).last_error for late in hanging} == {"timeout"}
