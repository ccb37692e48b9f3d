"""The world of one simulated run: real tables, a real folder, and a broker in memory."""

import hashlib
import json
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from jobs.errors import ServiceUnavailable
from jobs.rows.database import Database
from jobs.service.resources import Resources
from jobs.settings import Settings
from jobs.values.claims import Claim
from jobs.values.files import StoredFile
from jobs.values.jobs import Job
from tests.chaos.simulation.faults import Bell, FaultyDatabase, FaultyStorage, Weather
from tests.support.services import Services

STEPS = 4
CHECKPOINT_EVERY = 2
CRASH = "the child crashed"


def state_after(step: int, teacher: bytes) -> bytes:
    """The state of a run after a step: a chain of hashes, so that no step can be left out or done twice."""
    state = teacher
    for number in range(1, step + 1):
        state = next_state(state, number)
    return state


def next_state(state: bytes, step: int) -> bytes:
    return json.dumps([step, hashlib.sha256(state).hexdigest()]).encode()


@dataclass
class Ledger:
    """Records of the scheduler, to compare with the tables.

    Args:
        submitted: the teachers of jobs whose submission was answered, by job id.
        fences: the highest fence of the claims of each job.
        stale_writes: writes that were accepted under a fence that was not the highest.
        refused: writes that were refused because the claim was lost.
    """

    submitted: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    ended_jobs: dict[str, Job] = field(default_factory=dict)
    fences: Counter[str] = field(default_factory=Counter)
    stale_writes: int = 0
    refused: int = 0

    def claimed(self, claim: Claim) -> None:
        assert claim.fence >= self.fences[claim.job.id], "a fence fell"
        self.fences[claim.job.id] = claim.fence

    def wrote(self, claim: Claim) -> None:
        self.stale_writes += claim.fence != self.fences[claim.job.id]


class World:
    """One run of the simulation.

    Args:
        databases: the one that fails and one that never does, over the same tables.
        settings: leases and attempts; its URLs are not used.
        folder: empty; for the store and scratch files.
        chance: the source of all chance.
    """

    def __init__(
        self,
        databases: tuple[FaultyDatabase, Database],
        settings: Settings,
        folder: Path,
        chance: random.Random | None = None,
    ):
        faulty, sound = databases
        self.chance = chance or random.Random(0)
        self.weather = faulty.weather = Weather(self.chance)
        self.bell = Bell(self.chance)
        self.service = Services(Resources(faulty, self.bell, settings))
        self.observer = Services(Resources(sound, self.bell, settings))
        self.storage = FaultyStorage.over(folder / "store", self.weather)
        self.scratch = folder
        self.ledger = Ledger()

    def fetch(self, stored: StoredFile) -> bytes:
        """Fetch a file as a worker does, with a check of its hash."""
        path = self.scratch / f"fetched-{uuid.uuid4().hex}"
        try:
            self.storage.get_to_file(stored, path)
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def run_out_leases(self, job_id: str | None = None) -> None:
        """Move the end of a job's lease, or of all leases, into the past."""
        self.execute(
            "UPDATE job SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL"
            " AND status IN ('validating', 'running') AND id = coalesce(:id, id)",
            id=job_id,
        )

    def let_time_pass(self) -> None:
        """Move the last ring more than `ring_again_seconds` into the past."""
        self.execute("UPDATE job SET rung_at = rung_at - interval '60 s' WHERE finished_at IS NULL")

    def execute(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        with self.observer.resources.database.transaction() as session:
            done = session.execute(text(statement), values)
            return [tuple(row) for row in done] if done.returns_rows else []

    def upkeep(self, *, crashing: bool = False) -> None:
        """Run one round of upkeep; a crashing one dies somewhere in it."""
        upkeep = self.service.upkeep
        duties = [upkeep.reap, upkeep.expire, upkeep.ring_again]
        if crashing:
            duties = duties[: self.chance.randrange(len(duties) + 1)]
            self.weather.database.extend(self.chance.choices([None, "cut", "unanswered"], k=2))
        try:
            for duty in duties:
                duty()
        except ServiceUnavailable:
            assert crashing or self.weather.rate or self.weather.database is not None
        finally:
            if crashing:
                self.weather.database.clear()
