"""Invariants that hold after every run, whatever the fault.

I1  every job whose submission was answered exists and has ended
I2  a terminal job never changes
I3  fences only rise
I4  no row was written under a fence that was not the highest of its time
I5  a run continues from a saved state, and its steps only grow from there
I6  succeeded means exactly one student, whose bytes hash and load
I7  no row without its file, and no file without a row once the sweep went by
I10 the student is bitwise that of an undisturbed run
I11 the attempts are those that were used
I12 no log contains a secret

That no job waits without a message (I8) follows from I1; tenants (I9) do not exist in this service. I10 and
I12 are checked where students and logs are written.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from jobs.files.store import Storage
from jobs.kinds import DISTILL
from jobs.service import for_upkeep
from jobs.states import JobStatus
from jobs.values.jobs import Job
from jobs.values.log import JobEvent
from tests.support.services import Services

# Reasons in the log of a job for a release that costs an attempt.
COSTLY = (for_upkeep.SILENCE, "crashed", "unexpected error")


def check_job(service: Services, storage: Storage, job_id: str) -> Job:
    """Check an ended job against its rows and files."""
    job = service.clients.get(job_id)
    assert job.is_terminal, f"I1: job {job_id} is {job.status}"
    events = service.clients.events(job_id, limit=100_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the log has gaps"
    ends = [
        event for event in events if event.type == "status" and JobStatus(event.data["status"]).is_terminal
    ]
    assert len(ends) == 1, f"I2: {len(ends)} ends"
    assert ends[0] is events[-1], "I2: an event after the end"
    check_attempts(job, events)
    check_steps(events)
    students = [artifact for artifact in job.artifacts if artifact.name == "student.safetensors"]
    assert len(students) == (job.status is JobStatus.SUCCEEDED and job.kind is DISTILL), "I6: students"
    for artifact in job.artifacts:
        assert storage.exists(artifact.key), f"I7: {artifact.name} is not in the store"
    return job


def check_attempts(job: Job, events: Iterable[JobEvent]) -> None:
    """I11: the attempts are one more than the losses."""
    statuses = [event.data for event in events if event.type == "status"]
    attempts = [data["attempt"] for data in statuses]
    assert all(before <= after for before, after in pairwise(attempts)), f"I11: attempts fell: {attempts}"
    losses = [data for data in statuses if any(reason in data.get("reason", "") for reason in COSTLY)]
    uncounted = [data for data in losses if JobStatus(data["status"]) is JobStatus.CANCELLED]
    assert job.attempt == 1 + len(losses) - len(uncounted), f"I11: attempt {job.attempt} after {losses}"


def check_steps(events: Iterable[JobEvent]) -> None:
    """I5: within a claim the steps never fall, and a resumed claim begins after a saved step."""
    saved_steps: set[int] = set()
    last = 0
    for event in events:
        if event.type == "status" and event.data["status"] == JobStatus.RUNNING:
            last = last if event.data.keys() & {"pause_requested", "cancel_requested"} else 0
        elif event.type == "checkpoint" and event.data.get("resumed"):
            assert event.data["step"] in saved_steps, (
                f"I5: resumed at {event.data['step']}, saved {sorted(saved_steps)}"
            )
            last = event.data["step"]
        elif event.type == "checkpoint":
            saved_steps.add(event.data["step"])
        elif event.type == "metrics":
            assert event.data["step"] >= last, f"I5: step {event.data['step']} after {last}"
            last = event.data["step"]


def check_fences(rows: Iterable[tuple[int, Any]]) -> None:
    """I3, I4: the fences of the lines of a log never fall."""
    fences = [fence for _, fence in sorted(rows) if fence is not None]
    assert fences == sorted(fences), f"I4: the log was written under {fences}"


def check_files(service: Services, storage: Storage) -> None:
    """I7, after all jobs have ended and a sweep: each row has its file, and each file its row."""
    report = service.upkeep.sweep(storage, grace_seconds=-60)
    assert report.missing_keys == [], f"I7: rows without files: {report.missing_keys}"
    orphans = [stored.key for stored in storage.list() if "#" in stored.key]
    assert orphans == [], f"I7: files that a sweep left: {orphans}"
