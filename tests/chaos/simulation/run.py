"""One run of the simulation: every kind of event, in a random order that its seed repeats."""

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.errors import JobNotPausable, JobNotPaused, JobNotTerminal, ServiceUnavailable
from jobs.rows.database import Database
from jobs.settings import Settings
from jobs.states import JobStatus
from jobs.values.jobs import Job, JobSummary
from tests.chaos import invariants
from tests.chaos.simulation.faults import FaultyDatabase
from tests.chaos.simulation.players import ChildKilled, Client, Worker
from tests.chaos.simulation.world import STEPS, World, state_after

TROUBLED_TURNS = 45  # actions while things go wrong; a job needs about thirty by itself
CALM_ROUNDS = 60
WORKERS = 3


class Run:
    """A world, its players, and the random events of one seed.

    Args:
        databases, settings, folder: as for `World`.
        seed: the same seed repeats the same run.
        clients: how many jobs are submitted.
    """

    def __init__(
        self,
        databases: tuple[FaultyDatabase, Database],
        settings: Settings,
        folder: Path,
        seed: int,
        clients: int = 1,
    ):
        self.chance = random.Random(seed)
        self.world = World(databases, settings, folder, self.chance)
        self.world.execute("DELETE FROM job")
        self.playing: list[tuple[Any, Any]] = [
            (client, client.play()) for client in (Client(self.world) for _ in range(clients))
        ]
        self.frozen: list[tuple[Any, Any]] = []
        self.happened: Counter[str] = Counter()

    def to_the_end(self) -> list[Job]:
        """Run with faults, then without until every job has ended; return the checked jobs.

        Raises:
            AssertionError: an invariant does not hold, or a job was lost.
        """
        self.world.weather.rate = self.chance.choice([0.0, 0.05, 0.15])
        self.world.bell.loses = self.chance.choice([0.0, 0.3])
        self.world.bell.repeats = self.chance.choice([0.0, 0.3])
        trouble = [action for action in TROUBLE if self.chance.random() < 0.5]
        for _ in range(TROUBLED_TURNS):
            if trouble and self.chance.random() < 0.2:
                action = self.chance.choice(trouble)
                self.happened[action.__name__] += 1
                action(self)
            elif not self.turn():
                break
        self.calm_down()
        return self.verdict()

    def turn(self) -> bool:
        """Let one player make one call, or a worker answer a bell; False after all jobs have ended."""
        self.answer_bells()
        if self.playing:
            self.advance(self.chance.choice(self.playing))
            return True
        if not self.frozen and all(job.is_terminal for job in self.jobs()):
            return False
        self.world.let_time_pass()
        self.world.upkeep()
        return True

    def answer_bells(self) -> None:
        for queue in ("inspect", "distill"):
            busy = sum(getattr(player, "queue", None) == queue for player, _ in self.playing)
            if busy < WORKERS and self.world.bell.take(queue):
                worker = Worker(self.world, queue)
                self.playing.append((worker, worker.play()))

    def advance(self, playing: tuple[Any, Any], error: Exception | None = None) -> None:
        _, play = playing
        try:
            if error is None:
                next(play)
            else:
                play.throw(error)
        except (StopIteration, ServiceUnavailable):
            self.playing.remove(playing)
        except ChildKilled:  # thrown in where no child ran: the worker was between two jobs
            self.playing.remove(playing)

    def calm_down(self) -> None:
        """End all faults; upkeep alone must recover what was lost."""
        world = self.world
        world.weather.clear_up()
        world.bell.down, world.bell.loses = False, 0.0
        self.playing += self.frozen  # zombies come back
        self.frozen = []
        for _ in range(CALM_ROUNDS):
            while self.playing:
                self.advance(self.chance.choice(self.playing))
            jobs = self.jobs()
            if all(job.is_terminal for job in jobs):
                return
            for job in jobs:
                if job.status is JobStatus.PAUSED:
                    world.observer.clients.resume(job.id)
            self.answer_bells()
            if not self.playing:
                world.run_out_leases()  # whoever still holds one is dead: nobody plays any more
                world.let_time_pass()
                world.upkeep()
                self.answer_bells()
        raise AssertionError(f"I1: lost {[job for job in self.jobs() if not job.is_terminal]}")

    def jobs(self) -> Sequence[JobSummary]:
        return self.world.observer.clients.list_jobs(limit=100).jobs

    def verdict(self) -> list[Job]:
        """Check all invariants on every job of this world, and return the jobs."""
        world, ledger = self.world, self.world.ledger
        jobs = [world.observer.clients.get(summary.id) for summary in self.jobs()]
        job_ids = {job.id for job in jobs}
        assert set(ledger.submitted) - ledger.deleted <= job_ids, "I1: an answered job is not there"
        assert ledger.stale_writes == 0, "I4: a stale write was accepted"
        keys = world.execute("SELECT idempotency_key, count(*) FROM job GROUP BY 1 HAVING count(*) > 1")
        assert keys == [], f"one key made several jobs: {keys}"
        for job in jobs:
            invariants.check_job(world.observer, world.storage, job.id)
            rows = world.execute("SELECT seq, fence FROM event WHERE job_id = :id", id=job.id)
            invariants.check_fences(rows)  # type: ignore[arg-type]
            assert job.fence >= ledger.fences[job.id], "I3: a fence fell"
            before = ledger.ended_jobs.get(job.id, job)
            assert before == job, f"I2: an ended job changed: {before} to {job}"
            self.check_student(job)
        invariants.check_files(world.observer, world.storage)
        return jobs

    def check_student(self, job: Job) -> None:
        """I6 and I10: the student is bitwise that of an undisturbed run."""
        for artifact in job.artifacts:
            if artifact.name == "student.safetensors":
                teacher = self.world.ledger.submitted.get(job.id)
                body = b"".join(self.world.storage.open_range(artifact.key))
                assert teacher is None or body == state_after(STEPS, teacher), f"I10: {body!r}"


def _worker_dies(run: Run) -> None:
    workers = [playing for playing in run.playing if isinstance(playing[0], Worker)]
    if workers:
        dead = run.chance.choice(workers)
        dead[1].close()
        run.playing.remove(dead)
        _lease_runs_out(run, dead)


def _worker_freezes(run: Run) -> None:
    workers = [playing for playing in run.playing if isinstance(playing[0], Worker)]
    if workers:
        frozen = run.chance.choice(workers)
        run.playing.remove(frozen)
        run.frozen.append(frozen)
        _lease_runs_out(run, frozen)


def _lease_runs_out(run: Run, playing: tuple[Any, Any]) -> None:
    if playing[0].claims is not None:
        run.world.run_out_leases(playing[0].claims.job.id)


def _worker_thaws(run: Run) -> None:
    if run.frozen:
        run.playing.append(run.frozen.pop(run.chance.randrange(len(run.frozen))))


def _child_dies(run: Run) -> None:
    at_work = [playing for playing in run.playing if getattr(playing[0], "claims", None) is not None]
    if at_work:
        run.advance(run.chance.choice(at_work), ChildKilled())


def _worker_drains(run: Run) -> None:
    for player, _ in run.playing:
        if isinstance(player, Worker) and run.chance.random() < 0.5:
            player.draining = True


def _upkeep(run: Run) -> None:
    run.world.let_time_pass()
    run.world.upkeep()


def _upkeep_crashes(run: Run) -> None:
    run.world.let_time_pass()
    run.world.upkeep(crashing=True)


def _broker_forgets(run: Run) -> None:
    run.world.bell.flush()


def _broker_toggles(run: Run) -> None:
    run.world.bell.down = not run.world.bell.down


def _client_calls(run: Run) -> None:
    job_ids = sorted(set(run.world.ledger.submitted) - run.world.ledger.deleted)
    if not job_ids:
        return
    clients = run.world.service.clients
    call = run.chance.choice([clients.cancel, clients.pause, clients.resume, clients.pause, clients.resume])
    with suppress(JobNotPausable, JobNotPaused, ServiceUnavailable):
        call(run.chance.choice(job_ids))


def _client_looks(run: Run) -> None:
    """Record ended jobs; sometimes delete one."""
    ledger, observer = run.world.ledger, run.world.observer
    for job_id in sorted(set(ledger.submitted) - ledger.deleted):
        job = observer.clients.get(job_id)
        if job.is_terminal:
            assert ledger.ended_jobs.setdefault(job_id, job) == job, "I2: an ended job changed"
        if run.chance.random() < 0.05:
            with suppress(JobNotTerminal):
                observer.clients.delete(job_id)
                ledger.deleted.add(job_id)


def _checkpoint_rots(run: Run) -> None:
    for row in run.world.execute("SELECT key FROM checkpoint_file ORDER BY key DESC LIMIT 1"):
        run.world.storage.damage(str(row[0]))


TROUBLE = (
    _worker_dies,
    _worker_freezes,
    _worker_thaws,
    _child_dies,
    _worker_drains,
    _upkeep,
    _upkeep_crashes,
    _broker_forgets,
    _broker_toggles,
    _client_calls,
    _client_looks,
    _checkpoint_rots,
)
