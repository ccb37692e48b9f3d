"""Simulations with all kinds of faults, on the real tables; no seed may lose a job.

`NAYER_CHAOS_SEED=7` repeats one run, `NAYER_CHAOS_JOBS=10000` runs until that many jobs have ended.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from cli.local.embedded import EmbeddedPostgres
from tests.chaos.simulation.many import simulate
from tests.support.services import fresh_database

SEEDS = int(os.environ.get("NAYER_CHAOS_SEEDS", "1000"))
PROCESSES = min(4, os.cpu_count() or 1)


@pytest.mark.skipif("NAYER_CHAOS_SEED" not in os.environ, reason="a look at one seed, when it is named")
def test_one_seed(postgres: EmbeddedPostgres) -> None:
    seed = int(os.environ["NAYER_CHAOS_SEED"])
    with fresh_database(postgres) as url:
        simulate(url, range(seed, seed + 1), 0)


@pytest.mark.timeout(7200)
def test_no_seed_loses_a_job(
    postgres: EmbeddedPostgres, record_property: Callable[[str, object], None]
) -> None:
    jobs = int(os.environ.get("NAYER_CHAOS_JOBS", "0"))
    seeds = (jobs or SEEDS) // PROCESSES
    with ExitStack() as stack:
        running = []
        for first in range(PROCESSES):
            url = stack.enter_context(fresh_database(postgres))
            arguments = [url, first, PROCESSES, seeds, -(-jobs // PROCESSES)]
            command = [sys.executable, "-m", "tests.chaos.simulation.many", *map(str, arguments)]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        results = [json.loads(process.communicate()[0] or "null") for process in running]
    assert None not in results, "a seed broke an invariant; its process says which, above"
    statuses, happened = Counter[str](), Counter[str]()
    for result in results:
        statuses.update(result["ended"])
        happened.update(result["happened"])
    refused = sum(result["refused"] for result in results)
    record_property("simulated_jobs", statuses.total())
    record_property("simulated_seeds", sum(result["seeds"] for result in results))
    record_property("simulated_refused_writes", refused)
    # The runs were worth it: all of it happened, most jobs came through, and zombies were refused.
    assert len(happened) == 12
    assert statuses["succeeded"] > statuses.total() / 2
    assert {"failed", "cancelled"} <= set(statuses)
    assert refused > seeds / 10
