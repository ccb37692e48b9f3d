"""The kinds of job in the database, also while the release before writes to it."""

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

import migrations
from cli.local.embedded import EmbeddedPostgres
from jobs.kinds import DISTILL, KINDS, VALIDATE
from jobs.settings import Settings
from tests.support.jobs import claimed, inspected, submitted
from tests.support.services import Services, fresh_database

OLDER_INSERT = """
INSERT INTO job (id, status, dry_run, spec, progress, timeline, latest_metrics)
SELECT %(id)s, status, %(dry_run)s, spec, progress, timeline, latest_metrics FROM job LIMIT 1
"""


@pytest.fixture
def own_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url


def kinds(url: str) -> set[tuple[str, int, bool]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute("SELECT kind, priority, dry_run FROM job").fetchall())


def test_jobs_from_before_the_kinds_get_theirs(own_url: str, settings: Settings) -> None:
    service = Services.open(settings.model_copy(update={"database_url": own_url}))
    submitted(service)
    submitted(service, kind=VALIDATE)
    expected = {("distill", 0, False), ("validate", 1, True)}
    assert kinds(own_url) == expected
    config = Config(Path(migrations.__file__).parent.parent / "alembic.ini", stdout=io.StringIO())
    config.set_main_option("sqlalchemy.url", own_url.replace("%", "%%"))
    service.close()
    command.downgrade(config, "0005")
    command.upgrade(config, "head")
    assert kinds(own_url) == expected


def test_what_the_release_before_inserts_has_its_kind(own_url: str, settings: Settings) -> None:
    service = Services.open(settings.model_copy(update={"database_url": own_url}))
    submitted(service)
    with psycopg.connect(own_url) as connection:
        for dry_run in (False, True):
            connection.execute(OLDER_INSERT, {"id": uuid.uuid4().hex, "dry_run": dry_run})
    assert kinds(own_url) == {("distill", 0, False), ("validate", 1, True)}
    service.close()


@pytest.mark.usefixtures("empty")
def test_of_two_waiting_jobs_the_one_of_higher_priority_is_taken(service: Services) -> None:
    submitted(service)
    urgent = submitted(service, kind=VALIDATE)
    assert service.clients.queue_positions([urgent])[urgent.id] == 1
    claimed(service, "inspect", urgent)


@pytest.mark.usefixtures("empty")
def test_a_job_waits_for_the_next_stage_of_its_kind(service: Services) -> None:
    assert inspected(service).status == "queued"
    assert inspected(service, kind=VALIDATE).status == "succeeded"


def test_each_kind_is_complete() -> None:
    assert KINDS == {"distill": DISTILL, "validate": VALIDATE}
    for kind in KINDS.values():
        assert kind.uploads["teacher"].is_required
        assert len(set(kind.stages)) == len(kind.stages) > 0
        assert kind.stage_after(kind.stages[-1]) is None
    assert len({kind.path for kind in KINDS.values()}) == len(KINDS)
