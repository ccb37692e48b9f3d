"""Any order of requests, crashes and returns leaves every job in a state the protocol knows.

A random walk over the real service, beside a model of ten lines: what is claimed, by which fence, and
how often it was lost. Clocks are moved by moving the leases in the table.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.errors import JobNotPausable, JobNotPaused, LeaseLost
from jobs.states import HELD_IN, JobStatus
from jobs.values.claims import Claim, StageResult
from nayer_core.contract.events import WarningEvent
from tests.support.jobs import a_checkpoint, an_artifact, submitted
from tests.support.services import Services

# A walk takes about half a second; NAYER_TEST_WALKS=1000 for a long look.
EXAMPLES = int(os.environ.get("NAYER_TEST_WALKS", "8"))


@dataclass
class Model:
    """What a job must look like."""

    status: JobStatus = JobStatus.VALIDATING
    fence: int = 0
    held: bool = False
    attempt: int = 1
    cancel_requested: bool = False
    pause_requested: bool = False
    ended_as: Any = None
    versions: list[int] = field(default_factory=list)


class Protocol(RuleBasedStateMachine):
    """Two jobs at most, so that every rule meets a job in every state."""

    service: Services
    url: str

    def __init__(self) -> None:
        super().__init__()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DELETE FROM job")
        self.models: dict[str, Model] = {}
        self.claims: list[Claim] = []
        self.line = 0

    @precondition(lambda self: len(self.models) < 2)
    @rule()
    def submit(self) -> None:
        self.models[submitted(self.service).id] = Model()

    @rule(queue=st.sampled_from(["inspect", "distill"]))
    def claim(self, queue: Any) -> None:
        waiting = JobStatus.VALIDATING if queue == "inspect" else JobStatus.QUEUED
        expected = [id_ for id_, model in self.models.items() if model.status == waiting and not model.held]
        claim = self.service.workers.claim(queue, "model")
        assert (claim.job.id if claim else None) == (expected[0] if expected else None)
        if claim is not None:
            model = self.models[claim.job.id]
            model.held, model.fence = True, model.fence + 1
            model.status = JobStatus.VALIDATING if queue == "inspect" else JobStatus.RUNNING
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), write=st.sampled_from(["record", "artifact", "checkpoint", "heartbeat"]))
    def write(self, data: Any, write: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.line += 1
        if write == "heartbeat":
            control = self.service.workers.heartbeat(claim)
            assert control.lost == (not self.good(claim))
            model = self.models[claim.job.id]
            wishes = (control.cancel_requested, control.pause_requested)
            assert control.lost or wishes == (model.cancel_requested, model.pause_requested)
            return
        calls = {
            "record": lambda: self.service.workers.record(
                claim, [(self.line, WarningEvent(code="w", message="m"))]
            ),
            "artifact": lambda: self.service.workers.add_artifact(claim, an_artifact("samples.png")),
            "checkpoint": lambda: self.service.workers.add_checkpoint(claim, a_checkpoint(step=self.line)),
        }
        self.allowed_if_good(claim, calls[write])

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=st.sampled_from(["fail", "cancel"]))
    def end(self, data: Any, end: str) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        call, status = {
            "fail": (lambda: self.service.workers.fail(claim, "c", "m", "h"), JobStatus.FAILED),
            "cancel": (lambda: self.service.workers.cancel(claim), JobStatus.CANCELLED),
        }[end]
        if self.allowed_if_good(claim, call):
            self.set_end(self.models[claim.job.id], status)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def end_stage(self, data: Any) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        if self.allowed_if_good(claim, lambda: self.service.workers.end_stage(claim, StageResult())):
            model = self.models[claim.job.id]
            status = JobStatus.SUCCEEDED
            if claim.queue == "inspect":
                status = JobStatus.CANCELLED if model.cancel_requested else JobStatus.QUEUED
            self.set_end(model, status)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), crashed=st.booleans())
    def release(self, data: Any, crashed: bool) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        if self.allowed_if_good(claim, lambda: self.service.workers.release(claim, crashed, "it crashed")):
            self.give_up(self.models[claim.job.id], crashed=crashed)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[job_id]
        self.service.clients.cancel(job_id)
        if model.held:
            model.cancel_requested = True
        elif not model.status.is_terminal:
            self.set_end(model, JobStatus.CANCELLED)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def pause(self, data: Any) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[job_id]
        if model.status in (JobStatus.QUEUED, JobStatus.PAUSED):
            self.service.clients.pause(job_id)
            model.status = JobStatus.PAUSED
        elif model.status == JobStatus.RUNNING and not model.cancel_requested:
            self.service.clients.pause(job_id)
            model.pause_requested = True
        else:
            with pytest.raises(JobNotPausable):
                self.service.clients.pause(job_id)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def resume(self, data: Any) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[job_id]
        if model.status in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED):
            self.service.clients.resume(job_id)
            model.pause_requested = False
            model.status = JobStatus.QUEUED if model.status == JobStatus.PAUSED else model.status
        else:
            with pytest.raises(JobNotPaused):
                self.service.clients.resume(job_id)

    @rule()
    def workers_vanish(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("UPDATE job SET lease_until = now() - interval '1 s' WHERE claimed_at < now()")
        held = [model for model in self.models.values() if model.held]
        assert self.service.upkeep.reap() == len(held)
        for model in held:
            self.give_up(model, crashed=True)

    @invariant()
    def every_job_is_as_it_must_be(self) -> None:
        for job_id, model in self.models.items():
            job = self.service.clients.get(job_id)
            assert (job.status, job.fence, job.attempt) == (model.status, model.fence, model.attempt)
            assert (job.lease_until is not None) == model.held
            assert not model.held or job.status in HELD_IN.values()
            model.versions.append(job.version)
            assert model.versions == sorted(model.versions)
            if job.is_terminal:
                assert model.ended_as in (None, job), "a terminal job never changes"
                model.ended_as = job
            events = self.service.clients.events(job_id, limit=1000)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))

    def good(self, claim: Claim) -> bool:
        model = self.models[claim.job.id]
        held_as = JobStatus.VALIDATING if claim.queue == "inspect" else JobStatus.RUNNING
        return model.held and model.fence == claim.fence and model.status == held_as

    def allowed_if_good(self, claim: Claim, call: Any) -> bool:
        if self.good(claim):
            call()
            return True
        before = self.service.clients.get(claim.job.id)
        with suppress(LeaseLost):
            call()
        # Or the call that ended this very claim came again: that is no error, and changes nothing.
        assert self.service.clients.get(claim.job.id) == before
        return False

    def give_up(self, model: Model, *, crashed: bool) -> None:
        model.held = False
        if model.cancel_requested:
            self.set_end(model, JobStatus.CANCELLED)
        elif crashed and model.attempt == self.service.resources.settings.max_attempts:
            self.set_end(model, JobStatus.FAILED)
        else:
            model.attempt += crashed
            if model.status == JobStatus.RUNNING:
                model.status = JobStatus.PAUSED if model.pause_requested else JobStatus.QUEUED
            model.pause_requested = False

    def set_end(self, model: Model, status: JobStatus) -> None:
        model.status, model.held, model.pause_requested = status, False, False


@pytest.mark.usefixtures("empty")
def test_any_order_of_events_keeps_to_the_protocol(service: Services, database_url: str) -> None:
    Protocol.service, Protocol.url = service, database_url
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=slow
        ),
    )
