"""Waiting and held are each defined once: rows, queries and the partial indexes agree on them."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from jobs.rows import held_jobs, repository, waiting_jobs
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.states import HELD_IN, JobStatus
from tests.support.jobs import submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")

NOW = datetime.now(UTC)
LEASES = {"none": None, "past": NOW - timedelta(seconds=9), "future": NOW + timedelta(days=9)}
HOUR = timedelta(hours=1)

States = dict[tuple[JobStatus, str, bool], str]


@pytest.fixture
def every_state(service: Services, database_url: str) -> States:
    """The ids of jobs in each status, with each lease and with or without a request to cancel."""
    jobs = {state: submitted(service).id for state in itertools.product(JobStatus, LEASES, (False, True))}
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE job DISABLE TRIGGER job_step")
        for (status, lease, cancel_requested), job_id in jobs.items():
            connection.execute(
                "UPDATE job SET status = %s, lease_until = %s, claimed_at = %s, cancel_requested = %s,"
                " max_runtime_seconds = 60, ran_seconds = 99 WHERE id = %s",
                [status, LEASES[lease], LEASES[lease] and LEASES["past"], cancel_requested, job_id],
            )
        connection.execute("ALTER TABLE job ENABLE TRIGGER job_step")
    return jobs


def plan(session: Session, query: Callable[[Session], object]) -> str:
    """How PostgreSQL carries out the first statement of a query, without sorting or reading a whole table."""
    calls: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        calls.append((statement, parameters))

    connection = session.connection()
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    connection.exec_driver_sql("SET LOCAL enable_sort = off")
    sqlalchemy.event.listen(connection, "before_cursor_execute", note)
    query(session)
    sqlalchemy.event.remove(connection, "before_cursor_execute", note)
    statement, parameters = calls[0]
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())


def ids_where(session: Session, condition: sqlalchemy.ColumnElement[bool]) -> set[str]:
    return set(session.scalars(sqlalchemy.select(JobTable.id).where(condition)))


def test_a_row_and_a_query_say_the_same(service: Services, every_state: States) -> None:
    with service.resources.database.transaction() as session:
        now = repository.now(session)
        rows = session.scalars(repository.select_jobs()).all()
        assert len(rows) == len(every_state)
        assert {row.id for row in rows if row.is_waiting} == ids_where(session, JobTable.is_waiting)
        assert {row.id for row in rows if row.is_held} == ids_where(session, JobTable.is_held)
        assert {row.id for row in rows if row.is_lost_at(now)} == ids_where(session, JobTable.is_lost())


def test_each_query_takes_the_jobs_that_its_definition_names(service: Services, every_state: States) -> None:
    waiting_ids, held_ids, lost_ids = set(), set(), set()
    for (status, lease, cancel_requested), job_id in every_state.items():
        if status in (JobStatus.VALIDATING, JobStatus.QUEUED) and lease == "none" and not cancel_requested:
            waiting_ids.add(job_id)
        if status in HELD_IN.values() and lease != "none":
            held_ids.add(job_id)
            lost_ids |= {job_id} if lease == "past" else set()
    with service.resources.database.transaction() as session:
        assert set(waiting_jobs.positions(session, list(every_state.values()))) == waiting_ids
        assert [waiting_jobs.count(session, queue) for queue in ("inspect", "distill")] == [1, 1]
        assert {row.id for row in held_jobs.lock_lost(session, 99)} == lost_ids
        assert {row.id for row in held_jobs.lock_overdue(session, 0, 99)} == waiting_ids | held_ids
        rows = [waiting_jobs.take_next(session, queue) for queue in ("inspect", "distill")]
        assert {row.id for row in rows if row} == waiting_ids
        ids = [waiting_jobs.mark_rung(session, queue, -HOUR, 99) for queue in ("inspect", "distill")]
        assert set(itertools.chain(*ids)) == waiting_ids
    assert service.clients.statistics().expired_leases == len(lost_ids)


def test_the_index_of_waiting_jobs_holds_those_that_queries_look_for(database_url: str) -> None:
    """The index of the migrations, and the one that the code defines, are the same for PostgreSQL."""
    (index,) = [index for index in JobTable.__table__.indexes if index.name == "ix_job_waiting"]
    statement = str(CreateIndex(index).compile(dialect=postgresql.dialect()))
    definition = "SELECT pg_get_indexdef(%s::regclass)"
    with psycopg.connect(database_url) as connection:
        expected = connection.execute(definition, ["ix_job_waiting"]).fetchone()
        connection.execute("DROP INDEX ix_job_waiting")
        connection.execute(statement)
        assert connection.execute(definition, ["ix_job_waiting"]).fetchone() == expected
        connection.rollback()


@pytest.mark.parametrize(
    ("index", "query"),
    [
        ("ix_job_waiting", lambda session: waiting_jobs.take_next(session, "distill")),
        ("ix_job_waiting", lambda session: waiting_jobs.count(session, "distill")),
        ("ix_job_waiting", lambda session: waiting_jobs.positions(session, ["0" * 32])),
        ("ix_job_waiting", lambda session: waiting_jobs.mark_rung(session, "distill", HOUR, 9)),
        ("ix_job_lease_until", lambda session: held_jobs.lock_lost(session, 9)),
    ],
)
def test_a_query_can_use_the_index_made_for_it(
    service: Services, index: str, query: Callable[[Session], object]
) -> None:
    """PostgreSQL uses a partial index only where the condition of the query implies that of the index."""
    with service.resources.database.transaction() as session:
        lines = plan(session, query)
    assert index in lines
    assert "Sort" not in lines, "the index gives the rows in the order of the query"
