"""Real PostgreSQL, Valkey and S3 for the tests, each started once a run and only when asked for.

postgres, valkey, seaweedfs   session   the servers; a test may `kill()` and `start()` them
database_url                  module    a fresh, migrated database
redis_url                     module    the broker, emptied
settings, service, storage    function  the rooms' own objects over these
"""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import psycopg
import pytest
from psycopg import sql

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from jobs.files.store import Storage
from jobs.service.for_clients import ClientJobs
from jobs.service.for_upkeep import UpkeepJobs
from jobs.service.for_webhooks import WebhookJobs
from jobs.service.for_workers import WorkerJobs
from jobs.service.resources import Resources
from jobs.settings import Settings
from tests.support.seaweedfs import EmbeddedSeaweed

TEMPLATE = "nayer_template"

_numbers = itertools.count(1)


class Services:
    """The services over one database; the API, workers and upkeep are each given their own alone."""

    def __init__(self, resources: Resources):
        self.resources = resources
        self.clients = ClientJobs(resources)
        self.workers = WorkerJobs(resources)
        self.upkeep = UpkeepJobs(resources)
        self.webhooks = WebhookJobs(resources)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Build them from their settings; connects to nothing yet."""
        return cls(Resources.open(settings))

    def with_settings(self, **changes: object) -> "Services":
        """The same database and doorbell under other settings."""
        settings = self.resources.settings.model_copy(update=changes)
        return Services(replace(self.resources, settings=settings))

    def close(self) -> None:
        """Close all connections."""
        self.resources.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server whose database TEMPLATE is migrated."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    try:
        _administer(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        migrate(server.url_of(TEMPLATE))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Valkey server."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), durable=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSeaweed]:
    """An S3 server with the bucket of `.url`, reached with `.options`."""
    server = EmbeddedSeaweed(tmp_path_factory.mktemp("seaweedfs"), durable=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A fresh, migrated database for one module of tests."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def redis_url(valkey: EmbeddedValkey) -> str:
    """The broker, with no message left from other modules."""
    valkey.flush()
    return valkey.url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings over the module's database, the broker and a folder of this test."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        storage_url=f"file://{tmp_path / 'storage'}",
        data_dir=tmp_path / "data",
        scratch_dir=tmp_path,
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[Services]:
    """The service layer over real parts."""
    services = Services.open(settings)
    yield services
    services.close()


@pytest.fixture
def storage(settings: Settings) -> Storage:
    """The folder of this test, as an object store."""
    return Storage.open(settings.storage_url)


@contextmanager
def fresh_database(server: EmbeddedPostgres) -> Iterator[str]:
    """A database copied from the migrated template, dropped at the end with whoever is connected."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    _administer(server, copy.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
    try:
        yield server.url_of(name)
    finally:
        server.start()  # a test may have killed it
        _administer(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def migrate(url: str) -> None:
    """Bring a database to the newest version, by the very command operators use."""
    subprocess.run(
        [sys.executable, "-m", "migrations"], env={**os.environ, "NAYER_DATABASE_URL": url}, check=True
    )


def _administer(server: EmbeddedPostgres, statement: sql.Composed) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement)


def pytest_sessionfinish() -> None:
    # A process that used obstore's async side and exits at once is aborted by its runtime.
    if "obstore" in sys.modules:
        time.sleep(0.2)
