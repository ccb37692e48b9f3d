"""Many seeds in one process, which has a database of its own and prints the results as JSON.

python -m tests.chaos.simulation.many URL FIRST STRIDE SEEDS JOBS
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.rows.database import Database
from jobs.settings import Settings
from tests.chaos.simulation.faults import FaultyDatabase, Weather
from tests.chaos.simulation.run import Run

MEMORY = Path("/dev/shm")


def simulated_settings() -> Settings:
    """Settings of simulations; nothing listens at their addresses."""
    return Settings(
        database_url="postgresql://nobody@127.0.0.1:9/nothing",
        redis_url="redis://127.0.0.1:9/0",
        storage_url="file:///nowhere",
    )


def folder_in_memory() -> "TemporaryDirectory[str]":
    """An empty folder in memory, where the machine has one: a simulation loses no power."""
    return TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)


def open_databases(url: str) -> tuple[FaultyDatabase, Database]:
    """Two connections to the same tables: one with injected faults, one without."""
    # No server is killed here, so commits need not survive that.
    sound = Database(url, pool_size=2)
    with sound.transaction() as session:
        connection = session.connection().connection.driver_connection
        assert connection is not None
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = off")
    sound.close()
    return FaultyDatabase(url, Weather()), sound


def simulate(url: str, seeds: "range", jobs: int) -> dict[str, Any]:
    """Run all seeds, or until `jobs` jobs have ended where `jobs` is not zero.

    Raises:
        AssertionError: a seed broke an invariant; the message names it.
    """
    databases, settings = open_databases(url), simulated_settings()
    statuses, happened, refused, done = Counter[str](), Counter[str](), 0, 0
    with folder_in_memory() as folder:
        for seed in seeds:
            place = Path(folder) / str(seed)
            place.mkdir()
            run = Run(databases, settings, place, seed, clients=1 + (seed % 4 == 0))
            try:
                statuses.update(str(job.status) for job in run.to_the_end())
            except Exception as error:
                raise AssertionError(f"seed {seed} ({type(error).__name__}): {error}") from error
            shutil.rmtree(place)
            refused += run.world.ledger.refused
            happened += run.happened
            done += 1
            if jobs and statuses.total() >= jobs:
                break
    for database in databases:
        database.close()
    return {"seeds": done, "ended": statuses, "happened": happened, "refused": refused}


if __name__ == "__main__":
    url, first, stride, count, jobs = sys.argv[1], *map(int, sys.argv[2:])
    sys.stdout.write(json.dumps(simulate(url, range(first, first + stride * count, stride), jobs)) + "\n")
