"""Short series are read whole, long ones thinned evenly."""

import itertools

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nayer_core.contract.events import MetricsEvent
from tests.support.jobs import running
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")


def fill(url: str, job_id: str, name: str, length: int) -> None:
    """Points at the steps 0, 10, 20, ... whose value is the step."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM metric")
        connection.execute(
            "INSERT INTO metric (job_id, name, step, epoch, value, fence)"
            " SELECT %s, %s, 10 * i, 1, 10 * i, 1 FROM generate_series(0, %s - 1) AS i",
            [job_id, name, length],
        )


# The database is the same for every example: each empties the table first.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 400), max_points=st.integers(1, 120))
def test_a_long_series_is_thinned_evenly(
    service: Services, database_url: str, length: int, max_points: int
) -> None:
    jobs = service.clients.list_jobs(limit=1).jobs
    job_id = jobs[0].id if jobs else running(service).job.id
    fill(database_url, job_id, "loss", length)

    steps = [point.step // 10 for point in service.clients.metrics(job_id, max_points=max_points)["loss"]]

    assert len(steps) == min(length, max_points)
    assert steps == sorted(set(steps))
    assert steps[-1] == length - 1
    if max_points > 1:
        assert steps[0] == 0
    gaps = {after - before for before, after in itertools.pairwise(steps)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_series_are_chosen_by_name(service: Services) -> None:
    claim = running(service)
    values = {"a": 1.0, "b": 2.0, "c": 3.0}
    service.workers.record(claim, [(1, MetricsEvent(epoch=1, step=1, values=values))])

    assert set(service.clients.metrics(claim.job.id)) == {"a", "b", "c"}
    assert set(service.clients.metrics(claim.job.id, names=["a", "c", "none", "\0"])) == {"a", "c"}
    assert service.clients.metrics(claim.job.id, names=[]) == {}


def test_of_two_values_for_one_step_the_later_one_counts(service: Services) -> None:
    claim = running(service)
    events = [MetricsEvent(epoch=1, step=1, values={"a": value}) for value in (1.0, 2.0)]
    service.workers.record(claim, list(enumerate(events, start=1)))
    (point,) = service.clients.metrics(claim.job.id)["a"]
    assert point.value == 2.0
