"""Every test of this room finds its database empty."""

import psycopg
import pytest


@pytest.fixture
def empty(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM job")  # faster than TRUNCATE while tables are small
        connection.execute("DELETE FROM embedding")
