"""Every test of this folder starts with an empty database."""

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy


@pytest.fixture
def empty(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM job")  # faster than TRUNCATE while tables are small
        connection.execute("DELETE FROM embedding")
        connection.execute("DELETE FROM bank")


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that reach a database while the test runs."""
    seen_statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen_statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    yield seen_statements
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
