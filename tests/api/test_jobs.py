import threading
from collections.abc import Callable

import httpx
import pytest

from jobs.files.store import Storage
from nayer_core.contract.presets import PRESETS
from tests.api.bodies import EVALUATION, spec, spec_part, teacher_part
from tests.api.conftest import PlayedWorker, assert_problem
from tests.support.jobs import QUALITY
from tests.support.services import Services

Post = Callable[..., httpx.Response]
Submit = Callable[..., str]


def test_a_new_job_is_accepted_and_can_be_read(post: Post, client: httpx.Client) -> None:
    response = post(spec_part(spec(metadata={"team": "vision"})), teacher_part())
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert int(response.headers["retry-after"]) >= 1
    assert job["status"] == "validating"
    assert not job["is_terminal"]
    assert job["spec"]["metadata"] == {"team": "vision"}
    assert job["spec"]["config"] == PRESETS["quick"].config.model_dump(mode="json")
    assert job["teacher"]["filename"] == "teacher.pt"
    answer = client.get(response.headers["location"])
    assert answer.json()["id"] == job["id"]
    assert answer.json()["queue_position"] >= 1


def test_a_job_is_followed_to_its_end(submit: Submit, client: httpx.Client, worker: PlayedWorker) -> None:
    job_id = submit()
    worker.inspect(job_id)
    job = client.get(f"/jobs/{job_id}").json()
    assert job["status"] == "queued"
    assert job["resolved"]["preset"] == "quick"
    assert job["teacher"]["architecture"] == "wrn_40_2"
    claim = worker.claim("distill", job_id)
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["queue_position"], job["quality"]) == ("running", None, None)
    worker.finish(claim)
    response = client.get(f"/jobs/{job_id}")
    job = response.json()
    assert (job["status"], job["is_terminal"]) == ("succeeded", True)
    assert job["metrics"]["latest"] == {"agreement_on_synthetic": 0.9}
    assert job["quality"] == QUALITY
    assert {item["name"] for item in job["artifacts"]} == {"student.safetensors", "model_card.json"}
    assert job["links"]["student"] == f"/jobs/{job_id}/student"
    assert "cancel" not in job["links"]
    assert "retry-after" not in response.headers


def test_a_failed_job_is_no_http_error(submit: Submit, client: httpx.Client, worker: PlayedWorker) -> None:
    job_id = submit()
    claim = worker.claim("inspect", job_id)
    worker.service.workers.fail(claim, "class_count_mismatch", "10 outputs, 2 labels.", "Send 10 labels.")
    response = client.get(f"/jobs/{job_id}")
    assert response.status_code == 200
    assert response.json()["error"] == {
        "code": "class_count_mismatch",
        "message": "10 outputs, 2 labels.",
        "hint": "Send 10 labels.",
        "retryable": False,
    }


def test_a_validation_ends_after_inspection(
    submit: Submit, client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit(path="/jobs/validate")
    worker.inspect(job_id)
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["dry_run"], job["teacher"]["num_classes"]) == ("succeeded", True, 2)


def test_an_unchanged_job_is_answered_with_304(
    submit: Submit, client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit()
    first = client.get(f"/jobs/{job_id}")
    etag = first.headers["etag"]
    again = client.get(f"/jobs/{job_id}", headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert again.headers["retry-after"]
    worker.inspect(job_id)
    changed = client.get(f"/jobs/{job_id}", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


def test_the_etag_follows_the_queue(submit: Submit, client: httpx.Client) -> None:
    ahead, behind = submit(), submit()
    before = client.get(f"/jobs/{behind}")
    client.post(f"/jobs/{ahead}/cancel")
    after = client.get(f"/jobs/{behind}", headers={"If-None-Match": before.headers["etag"]})
    assert after.json()["queue_position"] == before.json()["queue_position"] - 1


def test_jobs_are_listed_newest_first_in_pages(submit: Submit, client: httpx.Client) -> None:
    ids = [submit() for _ in range(5)]
    listed_ids: list[str] = []
    page = client.get("/jobs", params={"limit": 2, "status": "validating"})
    while True:
        listed_ids += [job["id"] for job in page.json()["data"]]
        if not page.json()["has_more"]:
            break
        assert page.json()["next"]
        page = client.get(page.links["next"]["url"])
    assert listed_ids[:5] == ids[::-1]
    assert len(listed_ids) == len(set(listed_ids))
    assert "link" not in page.headers


def test_a_list_entry_agrees_with_the_whole_job(
    submit: Submit, client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit(spec_part(spec(metadata={"team": "vision"})), teacher_part(), EVALUATION)
    worker.inspect(job_id)
    whole = client.get(f"/jobs/{job_id}").json()
    entry = next(job for job in client.get("/jobs?limit=100").json()["data"] if job["id"] == job_id)
    assert set(whole) - set(entry) == {"spec", "resolved", "timeline"}
    assert set(entry) - set(whole) == {"summary"}
    assert entry["summary"] == {
        "num_classes": 2,
        "input_size": [3, 32, 32],
        "teacher_architecture": "auto",  # the played worker resolves nothing
        "student_architecture": "wrn_16_1",
        "preset": "quick",
        "metadata": {"team": "vision"},
        "webhook": False,
    }
    assert entry["teacher"] == {name: whole["teacher"][name] for name in ("filename", "bytes", "sha256")}
    both = set(entry) & set(whole) - {"teacher"}
    assert {name: entry[name] for name in both} == {name: whole[name] for name in both}


def test_a_page_stays_small_however_many_labels_its_jobs_have(submit: Submit, client: httpx.Client) -> None:
    labels = [f"class {number}" for number in range(4_000)]
    ids = {submit(spec_part(spec(labels=labels)), teacher_part()) for _ in range(3)}
    response = client.get("/jobs?limit=100")
    entries = {job["id"]: job for job in response.json()["data"]}
    assert {entries[job_id]["summary"]["num_classes"] for job_id in ids} == {4_000}
    assert len(response.content) < 2_000 * len(entries)
    assert client.get(f"/jobs/{ids.pop()}").json()["spec"]["labels"] == labels


def test_the_list_can_be_narrowed_to_a_status(submit: Submit, client: httpx.Client) -> None:
    job_id = submit()
    client.post(f"/jobs/{job_id}/cancel")
    cancelled = client.get("/jobs", params={"status": "cancelled"}).json()["data"]
    assert job_id in [job["id"] for job in cancelled]
    assert {job["status"] for job in cancelled} == {"cancelled"}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=done", "after=no-such-job", "after=%00"]
)
def test_invalid_list_parameters_are_refused(query: str, client: httpx.Client) -> None:
    problem = assert_problem(client.get(f"/jobs?{query}"), 422, "invalid_parameter")
    assert query.split("=")[0] in str(problem["detail"])


def test_cancelling_is_idempotent_and_does_not_change_finished_jobs(
    submit: Submit, client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit()
    first = client.post(f"/jobs/{job_id}/cancel")
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert client.post(f"/jobs/{job_id}/cancel").json() == first.json()
    done = submit()
    worker.finish(worker.start(done))
    assert client.post(f"/jobs/{done}/cancel").json()["status"] == "succeeded"


def test_cancelling_a_running_job_asks_its_worker(
    submit: Submit, client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit()
    claim = worker.start(job_id)
    job = client.post(f"/jobs/{job_id}/cancel").json()
    assert (job["status"], job["cancel_requested"]) == ("running", True)
    assert worker.service.workers.heartbeat(claim).cancel_requested
    worker.service.workers.cancel(claim)
    assert client.get(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_queued_job_is_paused_at_once(submit: Submit, client: httpx.Client, worker: PlayedWorker) -> None:
    job_id = submit()
    assert_problem(client.post(f"/jobs/{job_id}/pause"), 409, "job_not_pausable")
    assert_problem(client.post(f"/jobs/{job_id}/resume"), 409, "job_not_paused")
    worker.inspect(job_id)
    assert client.get(f"/jobs/{job_id}").json()["links"]["pause"] == f"/jobs/{job_id}/pause"
    paused = client.post(f"/jobs/{job_id}/pause")
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert client.post(f"/jobs/{job_id}/pause").json() == paused.json()
    links = paused.json()["links"]
    assert ("pause" in links, links["resume"]) == (False, f"/jobs/{job_id}/resume")
    resumed = client.post(links["resume"]).json()
    assert (resumed["status"], "resume" in resumed["links"]) == ("queued", False)
    worker.finish(worker.claim("distill", job_id))
    assert_problem(client.post(f"/jobs/{job_id}/pause"), 409, "job_not_pausable")


def test_pausing_a_running_job_asks_its_worker(
    submit: Submit, client: httpx.Client, worker: PlayedWorker
) -> None:
    job_id = submit()
    claim = worker.start(job_id)
    job = client.post(f"/jobs/{job_id}/pause").json()
    assert (job["status"], job["pause_requested"], "resume" in job["links"]) == ("running", True, True)
    assert worker.service.workers.heartbeat(claim).pause_requested
    worker.service.workers.release(claim, counts_attempt=False, reason="paused")
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["pause_requested"]) == ("paused", False)
    assert client.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"


def test_only_ended_jobs_can_be_deleted(
    submit: Submit, client: httpx.Client, service: Services, storage: Storage
) -> None:
    job_id = submit()
    key = service.clients.get(job_id).uploads["teacher"].key
    assert_problem(client.delete(f"/jobs/{job_id}"), 409, "job_not_terminal")
    client.post(f"/jobs/{job_id}/cancel")
    response = client.delete(f"/jobs/{job_id}")
    assert (response.status_code, response.content) == (204, b"")
    assert not storage.exists(key)
    assert_problem(client.delete(f"/jobs/{job_id}"), 404, "job_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/model_card.json"),
        ("GET", "/artifacts/nothing"),
        ("GET", "/student"),
    ],
)
@pytest.mark.parametrize(
    "job_id", ["nope", "00000000-0000-0000-0000-000000000000", "%00", "%F0%9F%92%A9", "a" * 3000]
)
def test_an_unknown_job_is_not_found(method: str, path: str, job_id: str, client: httpx.Client) -> None:
    response = client.request(method, f"/jobs/{job_id}{path}")
    assert response.status_code == 404, response.text
    assert response.json()["code"] == "job_not_found"
    assert response.headers["content-type"] == "application/problem+json"


class TestIdempotency:
    def test_the_same_request_gives_the_same_job(self, post: Post, storage: Storage) -> None:
        first = post(spec_part(), teacher_part(), Idempotency_Key="again")
        upload_keys = {item.key for item in storage.list("uploads")}
        assert "idempotent-replayed" not in first.headers
        # Other order, other white space and file name: the same request.
        second = post(teacher_part(filename="other.pt"), spec_part(), Idempotency_Key="again")
        assert (second.status_code, second.json()["id"]) == (202, first.json()["id"])
        assert second.headers["idempotent-replayed"] == "true"
        assert second.headers["location"] == first.headers["location"]
        assert {item.key for item in storage.list("uploads")} == upload_keys

    @pytest.mark.parametrize(
        "parts",
        [
            (spec_part(spec(seed=1)), teacher_part()),
            (spec_part(), teacher_part(b"other bytes")),
            (spec_part(), teacher_part(), EVALUATION),
        ],
    )
    def test_another_request_under_the_same_key_is_refused(
        self, parts: tuple[bytes, ...], post: Post, storage: Storage
    ) -> None:
        assert post(spec_part(), teacher_part(), Idempotency_Key="reused").status_code == 202
        upload_keys = {item.key for item in storage.list("uploads")}
        assert_problem(post(*parts, Idempotency_Key="reused"), 422, "idempotency_key_reused")
        assert {item.key for item in storage.list("uploads")} == upload_keys

    def test_a_validation_is_another_request(self, post: Post) -> None:
        assert post(Idempotency_Key="dry").status_code == 202
        assert_problem(post(Idempotency_Key="dry", path="/jobs/validate"), 422, "idempotency_key_reused")

    def test_many_at_once_create_one_job(self, post: Post) -> None:
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(post(Idempotency_Key="at-once"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [202] * 8
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7

    @pytest.mark.parametrize("key", ["", "a" * 256, "a\tb"])
    def test_an_invalid_key_is_refused(self, key: str, post: Post) -> None:
        assert_problem(post(Idempotency_Key=key), 400, "invalid_idempotency_key")
