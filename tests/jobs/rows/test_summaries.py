"""The summaries of jobs in a list are small, whatever their specs hold."""

import io
import json
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

import migrations
from cli.local.embedded import EmbeddedPostgres
from jobs.rows import repository
from jobs.settings import Settings
from jobs.values.claims import StageResult
from jobs.values.jobs import summarise
from tests.support.jobs import a_spec, claimed, submitted
from tests.support.services import Services, fresh_database

LARGE = {"spec", "resolved", "report", "timeline"}


@pytest.mark.usefixtures("empty")
def test_a_list_leaves_the_large_documents_in_the_database(service: Services) -> None:
    submitted(service)
    with service.resources.database.transaction() as session:
        (row,) = repository.list_jobs(session, None, 10, None)
        assert set(row.__dict__) & LARGE == set()
        assert row.as_summary().id == row.id


@pytest.mark.usefixtures("empty")
def test_the_summary_follows_the_inspection(service: Services) -> None:
    spec = a_spec(labels=["a", "b", "c"], metadata={"team": "vision"}, webhook={"url": "https://example.com"})
    job = submitted(service, spec=spec)
    expected = {
        "num_classes": 3,
        "input_size": [3, 32, 32],
        "teacher_architecture": "auto",
        "student_architecture": "wrn_16_1",
        "preset": "balanced",
        "metadata": {"team": "vision"},
        "webhook": True,
    }
    assert service.clients.list_jobs().jobs[0].summary == job.summary == expected
    claim = claimed(service, "inspect", job)
    service.workers.end_stage(claim, StageResult(resolved={"teacher_architecture": "resnet20"}))
    assert service.clients.list_jobs().jobs[0].summary == {**expected, "teacher_architecture": "resnet20"}


def test_the_migration_adds_summaries_to_old_jobs(
    postgres: EmbeddedPostgres, settings: Settings, tmp_path: Path
) -> None:
    root = Path(migrations.__file__).parent.parent
    with fresh_database(postgres) as url:
        config = Config(root / "alembic.ini", stdout=io.StringIO())
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        service = Services.open(settings.model_copy(update={"database_url": url}))
        ids = [submitted(service, spec=a_spec(labels=["a\0", f"b{n}"])).id for n in range(45)]
        command.downgrade(config, "0004")
        command.upgrade(config, "head")
        summaries = service.clients.list_jobs(limit=100).jobs
        assert [job.id for job in summaries] == ids[::-1]
        assert all(job.summary["num_classes"] == 2 for job in summaries)
        service.close()


@pytest.mark.usefixtures("empty")
def test_a_job_from_an_older_service_is_listed(service: Services, database_url: str) -> None:
    job = submitted(service)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE job SET summary = NULL")
    assert service.clients.list_jobs().jobs[0].summary == {}
    assert service.clients.get(job.id).summary == job.summary


def test_a_summary_is_small_whatever_the_spec_holds() -> None:
    largest = a_spec(
        labels=[f"{number:0200}" for number in range(10_000)],
        metadata={f"{number:0100}": "x" * 500 for number in range(16)},
        text_encoder={"prompt": "{label}" + "x" * 400},
    )
    summary = summarise(largest.model_dump(mode="json"), None)
    assert len(json.dumps(summary)) < 16 * 650 + 500
