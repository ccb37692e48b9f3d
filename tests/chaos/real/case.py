"""One real job that is held in one phase while a fault strikes the service."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from jobs.states import JobStatus
from jobs.values.jobs import Job
from tests.api.bodies import BOUNDARY, CONTENT_TYPE, part, spec, spec_part
from tests.chaos import invariants
from tests.chaos.real.core import student_of
from tests.chaos.real.fleet import SECRET, Fleet, Member, wait_for
from tests.chaos.real.proxy import Fate, Hold
from tests.chaos.real.recoveries import Recovery

GATES = {"P2": "inspect", "P6": "step"}
# Where the fault strikes the store, a job that is about to end must not have stored its files yet.
GATES_BEFORE_FILES = {**GATES, "P9": "finalise"}
# Bytes in the transaction of a phase.
MARKERS = {
    "P5": b'"status":"running"',
    "P7": b'"state.json":"',
    "P8": b'"values":{',
    "P9": b'"status":"succeeded"',
}
END_SECONDS = 60
OUTAGE_STATUSES = {503, 429}


class Case:
    """A job, its gates, and the worker that holds it.

    Args:
        fleet: running, without a fault.
        phase: the phase in which the job is held.
        folder: empty; the gates of this job.
    """

    def __init__(self, fleet: Fleet, phase: str, folder: Path):
        self.fleet = fleet
        self.phase = phase
        self.gates = folder
        self.key = uuid.uuid4().hex
        self.teacher = json.dumps({"gates": str(folder), "key": self.key}).encode()
        self.job_id = ""
        self.member: Member | None = None
        self.hold: Hold | None = None
        self.struck_at = 0.0
        self.statuses: set[int] = set()
        self.before: list[Case] = []
        self.recovered: Recovery | None = None
        self.cancel_seconds: float | None = None

    @property
    def holder(self) -> Member:
        assert self.member is not None
        return self.member

    def arrive(self, gates: Mapping[str, str] = GATES) -> "Case":
        """Submit the job and wait until it is in its phase."""
        fleet, phase = self.fleet, self.phase
        if phase in gates:
            (self.gates / gates[phase]).touch()
            self.submit()
            arrival = self.gates / f"{gates[phase]}.reached"
            wait_for(arrival.exists, END_SECONDS, f"the core comes to {phase}")
            self.member = fleet.worker_of(self.job_id)
        elif phase in MARKERS:
            self.hold = fleet.hold(fleet.distillers, MARKERS[phase])
            self.submit()
            assert self.hold.at_commit.wait(END_SECONDS), f"nobody came to {phase}"
            self.member = fleet.holder(self.hold)
        elif phase == "P4":  # it waits because every distiller is busy, and its message with it
            for number, _ in enumerate(fleet.distillers):
                folder = self.gates / f"before-{number}"
                folder.mkdir()
                self.before.append(Case(fleet, "P6", folder).arrive())
            self.submit()
            self.until(JobStatus.QUEUED)
        elif phase == "P10":
            self.submit()
            self.until(JobStatus.SUCCEEDED)
        self.struck_at = time.time()
        return self

    def leave(self, fate: Fate = "forward") -> None:
        """Release the job and the transaction that are held."""
        for name in GATES_BEFORE_FILES.values():
            (self.gates / name).unlink(missing_ok=True)
        if self.hold is not None:
            self.hold.let(fate)
        for case in self.before:
            case.leave()

    def submit(self) -> None:
        """Post the job, and again with the same key while the service answers 503 or not at all."""
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until:
            status, body = self.post()
            if status == 202:
                self.job_id = body["id"]
                return
            time.sleep(0.3)
        raise AssertionError(f"never accepted: {self.statuses}")

    def post(self) -> tuple[int, Any]:
        """Send one submission; the status is 0 where the connection broke."""
        files = {"spec": (None, json.dumps(spec())), "teacher": ("teacher.pt", self.teacher)}
        return self.ask("POST", "/jobs", files=files, headers={"Idempotency-Key": self.key})

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Send a request to the API and record its status; 0 where the connection broke."""
        try:
            answer = self.fleet.client.request(method, path, **more)
        except httpx.TransportError:
            return 0, None
        self.statuses.add(answer.status_code)
        if answer.status_code in OUTAGE_STATUSES:
            assert "retry-after" in answer.headers
        assert answer.status_code < 500 or answer.status_code in OUTAGE_STATUSES, answer.text
        is_json = "json" in answer.headers.get("content-type", "") and answer.content
        return answer.status_code, answer.json() if is_json else answer.content

    @property
    def student(self) -> str:
        """Path of the student, downloaded from the API itself."""
        return f"/jobs/{self.job_id}/artifacts/student.safetensors?redirect=false"

    def send_half_and(self, strike: Callable[[], object]) -> int:
        """Begin an upload, strike, send the rest; return the status, 0 without an answer."""
        headers = {"Content-Type": CONTENT_TYPE, "Idempotency-Key": self.key}
        return self.ask("POST", "/jobs", content=self._halves(strike), headers=headers)[0]

    def _halves(self, strike: Callable[[], object]) -> Iterator[bytes]:
        middle = len(self.teacher) // 2
        yield spec_part() + part("teacher", self.teacher, "teacher.pt")[: middle - len(self.teacher) - 2]
        time.sleep(0.3)
        strike()
        time.sleep(0.3)
        yield self.teacher[middle:] + f"\r\n--{BOUNDARY}--\r\n".encode()

    def job(self) -> Job:
        return self.fleet.service.clients.get(self.job_id)

    def until(self, status: JobStatus, seconds: float = END_SECONDS) -> Job:
        def there() -> Job | None:
            job = self.job()
            assert not job.is_terminal or job.status is status, f"ended as {job.status}: {job.error}"
            return job if job.status is status else None

        result: Job = wait_for(there, seconds, f"job {self.job_id} is {status}")
        return result

    def expect_end(
        self,
        *statuses: JobStatus,
        attempt: int | None = 1,
        code: str | None = None,
        seconds: float = END_SECONDS,
    ) -> Job:
        """Wait for the end and check all invariants of the job.

        Args:
            attempt: the expected attempt; None where more than one is right.
        """
        wait_for(lambda: self.job().is_terminal, seconds, f"the end of {self.job_id}")
        fleet = self.fleet
        job = invariants.check_job(fleet.service, fleet.storage, self.job_id)
        assert job.status in (statuses or (JobStatus.SUCCEEDED,)), job.error
        assert attempt in (None, job.attempt), f"attempt {job.attempt}, not {attempt}"
        assert code is None or (job.error or {})["code"] == code
        with fleet.service.resources.database.transaction() as session:
            query = text("SELECT seq, fence FROM event WHERE job_id = :id")
            invariants.check_fences([tuple(row) for row in session.execute(query, {"id": job.id})])
        if job.status is JobStatus.SUCCEEDED:
            (student,) = [artifact for artifact in job.artifacts if artifact.name == "student.safetensors"]
            assert b"".join(fleet.storage.open_range(student.key)) == student_of(self.teacher), "I10"
        assert SECRET not in fleet.logs(), "I12"
        for case in self.before:
            case.expect_end(attempt=None)
        return job
