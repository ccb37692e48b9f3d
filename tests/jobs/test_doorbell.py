"""The doorbell rings within a moment or not at all, and workers understand its message."""

import base64
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest
import redis

from cli.local.embedded import EmbeddedValkey
from jobs.doorbell import Doorbell


@pytest.fixture
def doorbell(valkey: EmbeddedValkey) -> Iterator[Doorbell]:
    valkey.flush()
    bell = Doorbell(valkey.url)
    yield bell
    bell.close()


def test_the_message_names_the_task_and_the_job_and_nothing_more(
    doorbell: Doorbell, valkey: EmbeddedValkey
) -> None:
    assert doorbell.ring("distill", "0" * 32)
    assert (doorbell.pending("distill"), doorbell.pending("inspect")) == (1, 0)

    with redis.Redis.from_url(valkey.url) as broker:
        message = json.loads(broker.lindex("distill", 0))
    assert message["headers"]["task"] == "worker.distill"
    assert message["content-type"] == "application/json"
    body = json.loads(base64.b64decode(message["body"]))
    assert body[:2] == [[], {"job_id": "0" * 32}]


def test_a_broker_that_comes_back_is_used_again(doorbell: Doorbell, valkey: EmbeddedValkey) -> None:
    assert doorbell.ring("inspect", "a")
    valkey.kill()
    try:
        assert not doorbell.ring("inspect", "b")
        assert doorbell.pending("inspect") is None
        assert doorbell.check() is None
    finally:
        valkey.start()
    assert doorbell.ring("inspect", "c")
    assert doorbell.pending("inspect") == 1
    assert doorbell.check() is not None


def test_a_silent_broker_does_not_delay_callers(doorbell: Doorbell, valkey: EmbeddedValkey) -> None:
    assert doorbell.ring("inspect", "a")
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        assert not doorbell.ring("inspect", "b")
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    assert doorbell.ring("inspect", "c")


def test_a_silent_open_port_does_not_delay_callers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        doorbell = Doorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert not doorbell.ring("inspect", "a")
        assert doorbell.check() is None
        doorbell.close()


def test_the_password_of_the_broker_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    doorbell = Doorbell("redis://:secret@127.0.0.1:9/0")
    assert not doorbell.ring("inspect", "0" * 32)
    assert "did not ring" in caplog.text
    assert "secret" not in caplog.text
    doorbell.close()
