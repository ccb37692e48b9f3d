"""Upkeeps and workers that take from one table at once: each row is taken once, and none is left.

A statement with SKIP LOCKED judges rows by the snapshot of its beginning. A row whose lock another
transaction has just released is judged again by its own newest columns, but not by other tables.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest

from jobs.rows import held_jobs, outbox, repository, retention, waiting_jobs
from jobs.rows.database import Session
from tests.support.jobs import a_spec, inspected, submitted
from tests.support.services import Services

JOBS, THREADS, LIMIT, ROUNDS = 24, 4, 2, 10
NOW = timedelta(0)
WEBHOOK = {"url": "https://example.com/hook"}


@dataclass(frozen=True)
class Work:
    """Rows that many transactions take batch by batch.

    Args:
        take: takes at most LIMIT rows in a transaction, and returns how many these were.
        put_back: makes all of them available again.
    """

    take: Callable[[Session], int]
    put_back: str


def claim(session: Session) -> int:
    job = waiting_jobs.take_next(session, "distill")
    if job is not None:
        job.lease_until = job.claimed_at = repository.now(session)
    return 0 if job is None else 1


def reap(session: Session) -> int:
    jobs = held_jobs.lock_lost(session, LIMIT)
    for job in jobs:
        job.lease_until = job.claimed_at = None
    return len(jobs)


def expire(session: Session) -> int:
    jobs = held_jobs.lock_overdue(session, 0, LIMIT)
    for job in jobs:
        job.ran_seconds = 0
    return len(jobs)


LET_GO = {
    "uploads": Work(
        lambda s: retention.release_files(s, "upload", NOW, LIMIT), "UPDATE file SET kept = true"
    ),
    "artifacts": Work(
        lambda s: retention.release_files(s, "artifact", NOW, LIMIT), "UPDATE file SET kept = true"
    ),
    "checkpoints": Work(
        lambda s: retention.delete_checkpoints(s, NOW, LIMIT),
        "INSERT INTO checkpoint SELECT id, 1, 1, 1, '{}' FROM job",
    ),
    "embeddings": Work(
        lambda s: retention.drop_embeddings(s, NOW, LIMIT),
        "INSERT INTO embedding SELECT id, 'key', 'sha256', 1 FROM job",
    ),
    "banks": Work(
        lambda s: retention.drop_banks(s, NOW, LIMIT),
        "INSERT INTO bank SELECT id, 'key', 'sha256', 1, 'job' FROM job",
    ),
}
TAKEN = {
    "claims": Work(claim, "UPDATE job SET lease_until = NULL, claimed_at = NULL"),
    "lost workers": Work(
        reap,
        "UPDATE job SET status = 'running', lease_until = now() - interval '1 s', claimed_at = now()",
    ),
    "jobs out of time": Work(expire, "UPDATE job SET ran_seconds = 61"),
    "silent jobs": Work(
        lambda s: len(waiting_jobs.mark_rung(s, "distill", timedelta(hours=1), LIMIT)),
        "UPDATE job SET rung_at = NULL",
    ),
    "deliveries": Work(
        lambda s: len(outbox.take(s, timedelta(hours=1), LIMIT)),
        "UPDATE delivery SET next_attempt_at = now()",
    ),
}


def share(service: Services, work: Work) -> int:
    """Let many take until nothing is left, and count what they took."""

    def take_all(_: int) -> int:
        total = 0
        while True:
            with service.resources.database.transaction() as session:
                count = work.take(session)
            total += count
            if count == 0:
                return total

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(take_all, range(THREADS)))


def rounds(service: Services, url: str, work: Work) -> list[int]:
    counts = []
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(ROUNDS):
            connection.execute(work.put_back)
            counts.append(share(service, work))
    return counts


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("kind", LET_GO)
def test_many_upkeeps_drop_each_row_once(service: Services, database_url: str, kind: str) -> None:
    for _ in range(JOBS):
        job = submitted(service)
        service.clients.cancel(job.id)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO file SELECT id, 'artifact', 'a', 'k', 's', 1 FROM job")
        before = connection.execute("SELECT id, version FROM job").fetchall()
    assert rounds(service, database_url, LET_GO[kind]) == [JOBS] * ROUNDS
    increase = ROUNDS if kind == "artifacts" else 0
    with psycopg.connect(database_url) as connection:
        after = connection.execute("SELECT id, version FROM job").fetchall()
    assert sorted(after) == sorted((job_id, version + increase) for job_id, version in before)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("kind", TAKEN)
def test_many_takers_take_each_row_once(service: Services, database_url: str, kind: str) -> None:
    spec = a_spec(max_runtime_seconds=60, webhook={**WEBHOOK, "events": ["job.queued"]})
    for _ in range(JOBS):
        inspected(service, spec=spec)
    assert rounds(service, database_url, TAKEN[kind]) == [JOBS] * ROUNDS
