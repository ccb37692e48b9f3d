"""One database for all simulations: every run begins by emptying it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local.embedded import EmbeddedPostgres
from jobs.rows.database import Database
from tests.chaos.simulation.faults import FaultyDatabase
from tests.chaos.simulation.many import folder_in_memory, open_databases
from tests.support.services import fresh_database

Databases = tuple[FaultyDatabase, Database]


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Iterator[Databases]:
    """Two connections to the same tables: one with injected faults, one without."""
    with fresh_database(postgres) as url:
        pair = open_databases(url)
        yield pair
        for database in pair:
            database.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder in memory."""
    with folder_in_memory() as path:
        yield Path(path)
