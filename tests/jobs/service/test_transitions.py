"""Only jobs/service/transitions and the few statements named here write to the row of a job."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from jobs.rows.tables import JobTable

ROOT = Path(__file__).parents[3]
TRANSITIONS = ROOT / "jobs/service/transitions"
COLUMNS = set(sqlalchemy.inspect(JobTable).attrs.keys())
MUTATORS = {"append", "clear", "extend", "insert", "pop", "remove", "setdefault", "update"}

# Rows of another table that has columns of the same names; a variable of this name is one of those.
OTHER_ROWS = {"delivery"}

# Statements that change rows which nobody has loaded, with the columns that each may set.
STATEMENTS = {
    "renew_lease": {"lease_until"},
    "mark_rung": {"rung_at"},
    "mark_not_rung": {"rung_at"},
    "release_files": {"version"},
}


def is_column(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in COLUMNS
        and not (isinstance(node.value, ast.Name) and node.value.id in OTHER_ROWS)
    )


def writes(tree: ast.AST) -> Iterator[int]:
    """Lines that assign to a column of a job, delete it, or change its value in place."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ctx=ast.Store() | ast.Del()) if is_column(node):
                yield node.lineno
            case ast.Subscript(ctx=ast.Store() | ast.Del(), value=value) if is_column(value):
                yield node.lineno
            case ast.Call(func=ast.Name(id="setattr" | "delattr")):
                yield node.lineno
            case ast.Call(func=ast.Attribute(attr=method, value=value)) if method in MUTATORS and is_column(
                value
            ):
                yield node.lineno


def updates(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """The UPDATE statements on jobs: the function that makes one, and the columns it sets."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Attribute(attr="values", value=statement), keywords=keywords) if any(
                    ast.unparse(part) == "update(JobTable)" for part in ast.walk(statement)
                ):
                    yield function.name, {keyword.arg or "**" for keyword in keywords}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "jobs").rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_only_transitions_write_to_a_job() -> None:
    wrong = [
        f"{path}:{line}"
        for path, tree in sources()
        if not (ROOT / path).is_relative_to(TRANSITIONS)
        for line in writes(tree)
    ]
    assert wrong == []


def test_statements_set_the_columns_that_are_theirs() -> None:
    names = [
        ast.unparse(node) for _, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.Call)
    ]
    assert names.count("update(JobTable)") == len(STATEMENTS)
    assert dict(update for _, tree in sources() for update in updates(tree)) == STATEMENTS


@pytest.mark.parametrize(
    "line",
    [
        "row.status = 'failed'",
        "row.attempt += 1",
        "row.worker: str = 'x'",
        "row.claimed_at, other = None, 1",
        "del row.error",
        "row.progress['fraction'] = 1.0",
        "row.timeline.append({})",
        "setattr(row, name, value)",
        "for row.phase in phases: pass",
        "with lease() as row.lease_until: pass",
    ],
)
def test_a_write_outside_transitions_is_detected(line: str) -> None:
    assert list(writes(ast.parse(line))) == [1]


@pytest.mark.parametrize("line", ["status = row.status", "delivery.status = 'failed'", "row.other = 1"])
def test_a_line_without_a_write_to_a_job_is_not_reported(line: str) -> None:
    assert list(writes(ast.parse(line))) == []
