"""Workers and clients of the simulation, as generators that stop before every call.

A player yields the name of the phase its next call belongs to. Between two calls the scheduler may let
others go first, throw an error in, or never come back: that is a crash. The workers keep to the
protocol of `worker`: they repeat a call that was not answered, write nothing after the lease is lost,
and store files before the rows that name them.
"""

from collections.abc import Callable, Generator
from typing import Any

from jobs.errors import FileCorrupt, FileMissing, LeaseLost, ServiceUnavailable
from jobs.kinds import DISTILL
from jobs.values.claims import Claim, StageResult
from jobs.values.files import Checkpoint, StoredFile
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import MetricsEvent, Phase, PhaseEvent
from tests.chaos.simulation.world import CHECKPOINT_EVERY, CRASH, STEPS, World, next_state
from tests.support.jobs import a_request

Play = Generator[str, None, Any]

PATIENCE = 200
READS = 3


class ChildKilled(Exception):
    """Thrown into a worker: its child died of a signal."""


class ChildRefused(Exception):
    """Thrown into a worker: its child refused the job with this code."""


class Stopped(Exception):
    """The work must end: the job is cancelled or paused, or the worker drains."""


class Worker:
    """A slot of a worker: claims jobs of a queue and works on them until none is left.

    Args:
        world: the world of the run.
        queue: the queue whose jobs it claims.
    """

    number = 0

    def __init__(self, world: World, queue: Any):
        Worker.number += 1
        self.name = f"simulated:{Worker.number}"
        self.world = world
        self.service = world.service.workers
        self.queue = queue
        self.draining = False
        self.claims: Claim | None = None
        self._calls = 0
        self._line = 0

    def play(self) -> Play:
        while not self.draining:
            claim = yield from self._claim()
            if claim is None:
                return
            self.claims = claim
            self._line = 0
            try:
                yield from self._work_on(claim)
            except LeaseLost:
                self.world.ledger.refused += 1
            except ServiceUnavailable:
                return
            self.claims = None

    def _claim(self) -> Play:
        self._calls += 1
        for attempt in range(PATIENCE):
            yield "P5"
            try:
                claim = self.service.claim(self.queue, f"{self.name}:{self._calls}", repeated=attempt > 0)
            except ServiceUnavailable:
                continue
            if claim is not None:
                self.world.ledger.claimed(claim)
            return claim
        return None

    def _work_on(self, claim: Claim) -> Play:
        service = self.service
        try:
            yield from (self._inspect(claim) if self.queue == "inspect" else self._distil(claim))
        except ChildRefused as refusal:
            code = str(refusal)
            yield from self._write("P9", claim, lambda: service.fail(claim, code, "m", "h"))
        except Stopped as stop:
            reason = str(stop)
            if reason == "cancelled":
                yield from self._write("P9", claim, lambda: service.cancel(claim))
            else:
                yield from self._write("P9", claim, lambda: service.release(claim, False, reason))
        except (ChildKilled, FileCorrupt, FileMissing, OSError):  # the last as on a full scratch disk
            yield from self._write("P9", claim, lambda: service.release(claim, True, CRASH))

    def _inspect(self, claim: Claim) -> Play:
        service, storage = self.service, self.world.storage
        teacher = yield from self._ask("P2", lambda: self.world.fetch(claim.job.uploads["teacher"]))
        yield from self._write("P2", claim, lambda: service.record(claim, [self._numbered(Phase.INSPECT)]))
        yield from self._look(claim, "P2")
        stored = yield from self._ask("P2", lambda: storage.put_stream([teacher], self._key("inputs")))
        inputs = {"teacher.safetensors": stored}
        yield from self._write("P2", claim, lambda: service.end_stage(claim, StageResult(inputs=inputs)))

    def _distil(self, claim: Claim) -> Play:
        service, storage = self.service, self.world.storage
        inputs = yield from self._ask("P6", lambda: service.inputs(claim))
        state = yield from self._ask("P6", lambda: self.world.fetch(inputs["teacher.safetensors"]))
        step, restored = yield from self._restore(claim)
        state = restored or state
        yield from self._write("P8", claim, lambda: service.record(claim, [self._numbered(Phase.DISTILL)]))
        while step < STEPS:
            yield from self._look(claim, "P6")
            step, state = step + 1, next_state(state, step + 1)
            line = self._numbered(MetricsEvent(epoch=step, step=step, values={"kl": 1 / step}))
            yield from self._write("P8", claim, lambda line=line: service.record(claim, [line]))
            if step % CHECKPOINT_EVERY == 0:
                yield from self._save(claim, step, state)
        stored = yield from self._ask("P9", lambda: storage.put_stream([state], self._key("artifacts")))
        students = [DISTILL.artifact("student.safetensors", stored)]
        results = StageResult(artifacts=students, metrics={"accuracy": 0.5})
        yield from self._write("P9", claim, lambda: service.end_stage(claim, results))

    def _restore(self, claim: Claim) -> Play:
        checkpoints = yield from self._ask("P6", lambda: self.service.checkpoints(claim))
        for checkpoint in checkpoints:
            try:
                state = yield from self._ask(
                    "P6", lambda checkpoint=checkpoint: self.world.fetch(checkpoint.files["state"])
                )
            except (FileCorrupt, FileMissing):
                continue
            yield from self._write(
                "P6", claim, lambda checkpoint=checkpoint: self.service.log_resume(claim, checkpoint)
            )
            return checkpoint.step, state
        return 0, None

    def _save(self, claim: Claim, step: int, state: bytes) -> Play:
        """Store a checkpoint; as in the worker, the run continues where that fails."""
        yield "P7"
        try:
            stored = self.world.storage.put_stream([state], self._key("checkpoints"))
        except ServiceUnavailable:
            return
        checkpoint = Checkpoint(0, step, step, {"state": stored})
        yield from self._write("P7", claim, lambda: self.service.add_checkpoint(claim, checkpoint))

    def _look(self, claim: Claim, phase: str) -> Play:
        """Send a heartbeat, and stop where its answer asks for that."""
        yield phase
        try:
            control = self.service.heartbeat(claim)
        except ServiceUnavailable:
            return
        if control.lost:
            raise LeaseLost("the heartbeat said so")
        self.world.ledger.wrote(claim)
        if control.cancel_requested:
            raise Stopped("cancelled")
        if control.pause_requested:
            raise Stopped("it was asked to pause")
        if self.draining:
            raise Stopped("the worker was shut down")

    def _ask(self, phase: str, call: Callable[[], Any]) -> Play:
        """Make a call, and repeat it while it is not answered."""
        damaged = 0
        for _ in range(PATIENCE):
            yield phase
            try:
                return call()
            except ServiceUnavailable:
                continue
            except FileCorrupt:
                damaged += 1
                if damaged == READS:
                    raise
        raise ServiceUnavailable("service", "given up")

    def _write(self, phase: str, claim: Claim, call: Callable[[], Any]) -> Play:
        done = yield from self._ask(phase, call)
        self.world.ledger.wrote(claim)
        return done

    def _numbered(self, event: Any) -> tuple[int, Any]:
        self._line += 1
        return self._line, (PhaseEvent(phase=event) if isinstance(event, Phase) else event)

    def _key(self, folder: str) -> str:
        self._calls += 1
        return f"{folder}/{self.name.replace(':', '-')}-{self._calls}"


class Client:
    """Submits one job, and repeats the request with the same key until it is answered."""

    number = 0

    def __init__(self, world: World):
        Client.number += 1
        self.key = f"client-{Client.number}-{world.chance.getrandbits(64):x}"
        self.world = world
        self.job_id = ""

    def play(self) -> Play:
        teacher = f"weights of {self.key}".encode()
        for attempt in range(PATIENCE):
            yield "P1"
            try:
                upload = self.world.storage.put_stream([teacher], f"uploads/{self.key}-{attempt}")
                upload = StoredFile(upload.key, upload.sha256, upload.bytes, "teacher.pt")
                yield "P3"
                new = a_request(
                    uploads={"teacher": upload}, idempotency_key=self.key, request_hash=upload.sha256
                )
                job, _ = self.world.service.clients.submit(new)
            except ServiceUnavailable:
                continue
            self.job_id = job.id
            self.world.ledger.submitted[job.id] = teacher
            return


def refusal(code: ErrorCode) -> ChildRefused:
    return ChildRefused(code.value)
