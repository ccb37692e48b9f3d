"""One seed, one run: everything that can happen, in an order that chance decides and a seed repeats."""

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
    """A world, who plays in it, and what chance does to them.

    Args:
        databases, settings, folder: as for `World`.
        seed: what repeats this very run.
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
        """Trouble, then calm until every job has ended; returns the jobs, checked.

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
        """Somebody makes one call, or a worker answers a bell; False once all is over."""
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
        """Nothing goes wrong any more; what was lost must be made good by upkeep alone."""
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
        """Check all invariants; every job of this world is looked at, answered for or not."""
        world, ledger = self.world, self.world.ledger
        jobs = [world.observer.clients.get(listed.id) for listed in self.jobs()]
        found = {job.id for job in jobs}
        assert set(ledger.submitted) - ledger.deleted <= found, "I1: an answered job is not there"
        assert ledger.stale_writes == 0, "I4: a stale write was accepted"
        keys = world.execute("SELECT idempotency_key, count(*) FROM job GROUP BY 1 HAVING count(*) > 1")
        assert keys == [], f"one key made several jobs: {keys}"
        for job in jobs:
            invariants.check_job(world.observer, world.storage, job.id)
            rows = world.execute("SELECT seq, fence FROM event WHERE job_id = :id", id=job.id)
            invariants.check_fences(rows)  # type: ignore[arg-type]
            assert job.fence >= ledger.fences[job.id], "I3: a fence fell"
            before = ledger.ended.get(job.id, job)
            assert before == job, f"I2: an ended job changed: {before} to {job}"
            self.check_student(job)
        invariants.check_files(world.observer, world.storage)
        return jobs

    def check_student(self, job: Job) -> None:
        """I6 and I10: the student is what an undisturbed run would have made."""
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


def _worker_goes_home(run: Run) -> None:
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


def _client_wishes(run: Run) -> None:
    job_ids = sorted(set(run.world.ledger.submitted) - run.world.ledger.deleted)
    if not job_ids:
        return
    clients = run.world.service.clients
    wish = run.chance.choice([clients.cancel, clients.pause, clients.resume, clients.pause, clients.resume])
    with suppress(JobNotPausable, JobNotPaused, ServiceUnavailable):
        wish(run.chance.choice(job_ids))


def _client_looks(run: Run) -> None:
    """Remember how ended jobs ended; sometimes delete one."""
    ledger, observer = run.world.ledger, run.world.observer
    for job_id in sorted(set(ledger.submitted) - ledger.deleted):
        job = observer.clients.get(job_id)
        if job.is_terminal:
            assert ledger.ended.setdefault(job_id, job) == job, "I2: an ended job changed"
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
    _worker_goes_home,
    _upkeep,
    _upkeep_crashes,
    _broker_forgets,
    _broker_toggles,
    _client_wishes,
    _client_looks,
    _checkpoint_rots,
)
