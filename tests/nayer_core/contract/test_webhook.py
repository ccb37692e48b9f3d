import base64

import pytest
from pydantic import ValidationError

from jobs.states import JobStatus
from nayer_core.contract.webhook import END_EVENTS, WEBHOOK_EVENTS, WebhookSpec
from tests.support.jobs import a_spec
from tests.support.receiver import SECRET, SECRET_TEXTS

URL = "https://example.com/hook"


def secret_of(length: int) -> str:
    return "whsec_" + base64.b64encode(b"k" * length).decode()


def test_every_status_but_the_first_can_be_sent_to_a_web_hook() -> None:
    assert set(WEBHOOK_EVENTS) == {f"job.{status}" for status in JobStatus if status != "validating"}
    assert set(END_EVENTS) == {f"job.{status}" for status in JobStatus if status.is_terminal}


def test_by_default_a_web_hook_gets_the_ends_of_a_job() -> None:
    assert WebhookSpec(url=URL).events == END_EVENTS  # type: ignore[arg-type] # read from a string
    twice = WebhookSpec.model_validate({"url": URL, "events": ["job.failed", "job.running", "job.failed"]})
    assert twice.events == ("job.running", "job.failed")


def test_a_secret_is_in_no_dump_and_no_repr() -> None:
    spec = a_spec(webhook={"url": URL, "secret": SECRET})
    assert spec.webhook is not None
    assert spec.webhook.secret is not None
    assert spec.webhook.secret.get_secret_value() == SECRET
    dumps = spec.model_dump_json() + str(spec.model_dump()) + repr(spec) + str(spec)
    assert "secret" not in spec.model_dump_json()
    assert not any(text in dumps for text in SECRET_TEXTS)
    assert a_spec(**{"webhook": spec.model_dump(mode="json")["webhook"]}).webhook is not None


@pytest.mark.parametrize("length", [24, 32, 64])
def test_secrets_of_the_standard_are_taken(length: int) -> None:
    WebhookSpec.model_validate({"url": URL, "secret": secret_of(length)})


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_not base64!",
        secret_of(23),
        secret_of(65),
        "whsec_ü",
        5,
    ],
)
def test_other_secrets_are_refused_without_being_repeated(secret: object) -> None:
    with pytest.raises(ValidationError) as raised:
        WebhookSpec.model_validate({"url": URL, "secret": secret})
    problems = raised.value.errors(include_url=False, include_input=False)
    assert problems[0]["loc"] == ("secret",)
    assert len(str(secret)) < 2 or str(secret) not in problems[0]["msg"].replace("whsec_ and", "")


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com/hook", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "http://",
        "https://user:password@example.com/", "https://user@example.com/", "https://example.com/#part",
        "https://example.com:99999/", "https://exa mple.com/", "https://example.com/" + "a" * 2100,
    ],
)  # fmt: skip
def test_a_url_that_is_no_receiver_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as raised:
        a_spec(webhook={"url": url})
    assert raised.value.errors()[0]["loc"] == ("webhook", "url")


@pytest.mark.parametrize("events", [[], ["job.validating"], ["succeeded"], "job.failed"])
def test_unknown_events_are_refused(events: object) -> None:
    with pytest.raises(ValidationError):
        a_spec(webhook={"url": URL, "events": events})
