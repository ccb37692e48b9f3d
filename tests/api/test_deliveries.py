import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from jobs.settings import Settings
from jobs.webhooks.deliveries import Answer
from tests.api.bodies import CONTENT_TYPE, body, spec, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem, serve
from tests.support.receiver import SECRET, SECRET_TEXTS

Post = Callable[..., httpx.Response]
URL = "https://example.com/nayer?token=1"


def hooked(**webhook: Any) -> bytes:
    """The part `spec` of a job with a web hook."""
    return spec_part(spec(webhook={"url": URL, "secret": SECRET, **webhook}))


@pytest.fixture
def hooked_job(post: Post, worker: PlayedWorker) -> str:
    """Id of a job that succeeded, with a message for each step that is not sent yet."""
    job_id = str(
        post(hooked(events=["job.queued", "job.running", "job.succeeded"]), teacher_part()).json()["id"]
    )
    worker.finish(worker.start(job_id))
    return job_id


def test_a_web_hook_is_shown_without_its_secret(
    post: Post, client: httpx.Client, worker: PlayedWorker
) -> None:
    created = post(hooked(), teacher_part())
    assert created.status_code == 202, created.text
    job_id = created.json()["id"]
    ends = ["job.succeeded", "job.failed", "job.cancelled"]
    assert created.json()["spec"]["webhook"] == {"url": URL, "events": ends}
    assert created.json()["links"]["deliveries"] == f"/jobs/{job_id}/deliveries"
    worker.finish(worker.start(job_id))
    pages = [f"/jobs/{job_id}{path}" for path in ("", "/events", "/deliveries", "/artifacts", "/metrics")]
    for path in (*pages, "/jobs", "/schema", "/openapi.json", "/metrics"):
        text = client.get(path).text
        assert not any(piece in text for piece in SECRET_TEXTS), path
    stream = client.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert not any(piece in stream.text for piece in SECRET_TEXTS)


def test_a_secret_that_cannot_be_used_is_not_repeated(post: Post) -> None:
    problem = assert_problem(post(hooked(secret=SECRET[:-9]), teacher_part()), 422, "invalid_spec")
    assert problem["errors"][0]["pointer"] == "/webhook/secret"  # type: ignore[index] # a list of objects
    assert not any(piece in json.dumps(problem) for piece in SECRET_TEXTS)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8000", "[::1]", "0x7f.1", "169.254.169.254", "10.0.0.1"]
)
def test_an_address_that_is_not_public_is_refused_before_the_teacher_is_sent(post: Post, host: str) -> None:
    problem = assert_problem(post(hooked(url=f"http://{host}/")), 422, "webhook_address_refused")
    assert problem["errors"][0]["pointer"] == "/webhook/url"  # type: ignore[index] # a list of objects
    assert "operator" in str(problem["hint"])


def test_an_operator_can_allow_every_address(settings: Settings) -> None:
    allowing = settings.model_copy(update={"webhook_private_addresses": True})
    content = body(hooked(url="http://127.0.0.1:9/"), teacher_part())
    for url in serve(allowing):
        response = httpx.post(
            f"{url}/jobs", content=content, headers={"Content-Type": CONTENT_TYPE}, timeout=20
        )
        assert response.status_code == 202, response.text
        httpx.post(f"{url}/jobs/{response.json()['id']}/cancel", timeout=20)


def test_another_secret_is_another_request(post: Post) -> None:
    other = "whsec_" + "A" * 44
    key = {"Idempotency-Key": "with-a-secret"}
    first = post(hooked(), teacher_part(), **key)
    again = post(hooked(), teacher_part(), **key)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert_problem(post(hooked(secret=other), teacher_part(), **key), 422, "idempotency_key_reused")


def test_deliveries_are_listed_newest_first_in_pages(hooked_job: str, client: httpx.Client) -> None:
    page = client.get(f"/jobs/{hooked_job}/deliveries", params={"limit": 2}).json()
    assert [delivery["event"] for delivery in page["data"]] == ["job.succeeded", "job.running"]
    assert page["has_more"]
    following = client.get(f"/jobs/{hooked_job}/deliveries", params={"after": page["next"]}).json()
    assert [delivery["event"] for delivery in following["data"]] == ["job.queued"]
    assert (following["has_more"], following["next"]) == (False, None)
    assert set(page["data"][0]) == {
        "id", "event", "status", "attempts", "last_status_code", "last_error", "next_attempt_at",
        "created_at", "delivered_at",
    }  # fmt: skip


def test_a_message_can_be_sent_again(hooked_job: str, client: httpx.Client, worker: PlayedWorker) -> None:
    for due in worker.service.webhooks.take_deliveries(100):
        worker.service.webhooks.settle_delivery(due, Answer(status_code=200))
    newest = client.get(f"/jobs/{hooked_job}/deliveries").json()["data"][0]
    assert (newest["status"], newest["last_status_code"], newest["attempts"]) == ("delivered", 200, 1)
    again = client.post(f"/jobs/{hooked_job}/deliveries/{newest['id']}/redeliver")
    assert again.status_code == 202
    assert (again.json()["id"], again.json()["status"]) == (newest["id"], "pending")


def test_unknown_deliveries_and_invalid_parameters_are_refused(
    hooked_job: str, client: httpx.Client, submit: Callable[..., str]
) -> None:
    assert client.get(f"/jobs/{submit()}/deliveries").json() == {"data": [], "has_more": False, "next": None}
    assert_problem(client.get("/jobs/nothing/deliveries"), 404, "job_not_found")
    for delivery_id in ("nothing", "msg_" + "0" * 32, "%00"):
        path = f"/jobs/{hooked_job}/deliveries/{delivery_id}/redeliver"
        assert_problem(client.post(path), 404, "delivery_not_found")
    assert_problem(client.post("/jobs/nothing/deliveries/nothing/redeliver"), 404, "job_not_found")
    for parameters in ({"after": "nothing"}, {"limit": "0"}, {"limit": "101"}):
        answer = client.get(f"/jobs/{hooked_job}/deliveries", params=parameters)
        assert_problem(answer, 422, "invalid_parameter")


def test_prometheus_counts_deliveries(hooked_job: str, client: httpx.Client) -> None:
    lines = client.get("/metrics").text.splitlines()
    counts = dict(line.split(" ") for line in lines if line.startswith("nayer_webhook_deliveries{"))
    states = ("pending", "delivered", "failed")
    assert set(counts) == {f'nayer_webhook_deliveries{{status="{state}"}}' for state in states}
    assert float(counts['nayer_webhook_deliveries{status="pending"}']) >= 3


def test_messages_match_the_openapi_schema(
    client: httpx.Client, hooked_job: str, worker: PlayedWorker
) -> None:
    """Each message is valid under the schema of `/openapi.json`, with no other field."""
    from openapi_schema_validator import OAS31Validator

    document = client.get("/openapi.json").json()
    assert document["webhooks"]["job"]["post"]["operationId"] == "jobMessage"
    schema = {"$ref": "#/components/schemas/Message", "components": document["components"]}
    messages = [
        json.loads(due.content)
        for due in worker.service.webhooks.take_deliveries(100)
        if due.job_id == hooked_job
    ]
    assert len(messages) == 3
    for message in messages:
        OAS31Validator(schema).validate(message)
        described = document["components"]["schemas"]
        assert set(message["data"]) == set(described["MessageJob"]["properties"])
