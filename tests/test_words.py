"""Plain words: names say what a value is, sentences use common verbs, and no class name occurs twice.

A room is a package, or a folder of tests. The rules hold for every room.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "benchmarks", "cli", "examples", "jobs", "migrations", "nayer", "nayer_core", "worker")

# Participles that say what was done to a value. `expected`, `finished`, `missing`, `received`, `resolved`,
# `stored` and `used` may be names: they are usual words for the values of a test or a state.
PARTICIPLES = """
    answered asked begun bought bound brought built caught chosen closed counted cut drawn ended
    felt found given gone heard held judged kept known laid led left listed lost made meant met
    named needed opened paid passed put reached read said saved seen sent shown sold spent spoken
    started stolen struck taken taught thought thrown told torn tried understood wanted wished won
    worn wrapped written
"""
LARGEST_SHARE = 0.012  # of all names of a room: `read` is a verb too, and `left` a direction
WORST = frozenset({"asked", "found", "given", "told", "wanted"})
DIALECT_OF_DOCUMENTS = re.compile(r"\b(lie|lies|stand|stands|shall|wish|anew)\b")
DIALECT = re.compile(r"\b(?:anew|lies|shall|stands|wish|wishes)\b", re.IGNORECASE)


def room_of(path: Path) -> str:
    """The package of a file, or its folder of tests; `cli` and `nayer` count as one."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "tests" and len(parts) > 2:
        return "/".join(parts[:2])
    return "cli" if parts[0] == "nayer" else parts[0]


@cache
def sources() -> dict[str, list[Path]]:
    """Python files by room, without this one: it lists the words."""
    rooms: dict[str, list[Path]] = {}
    for folder in (*PACKAGES, "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__).resolve():
                rooms.setdefault(room_of(path), []).append(path)
    return rooms


def names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names that a file gives to variables, parameters, attributes, functions and classes, and lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno


def named_participles(room: str) -> tuple[int, list[tuple[str, str]]]:
    """The number of names in a room, and (participle, place) for each name that is a single participle."""
    total, participles = 0, []
    for path in sources()[room]:
        for name, line in names(ast.parse(path.read_text())):
            total += 1
            word = name.strip("_").lower()
            if word in PARTICIPLES.split():
                participles.append((word, f"{path.relative_to(ROOT)}:{line} {name}"))
    return total, participles


def sentences(path: Path) -> Iterator[tuple[str, int]]:
    """Docstrings, other strings and comments of a file, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield token.string, token.start[0]


@pytest.mark.parametrize("room", sources())
def test_a_name_says_what_a_value_is(room: str) -> None:
    total, participles = named_participles(room)
    largest = int(LARGEST_SHARE * total)
    places = "\n".join(place for _, place in participles)
    assert len(participles) <= largest, (
        f"{len(participles)} of {total} names, {largest} are allowed:\n{places}"
    )


@pytest.mark.parametrize("room", sources())
def test_the_worst_participles_are_no_names(room: str) -> None:
    worst = [place for word, place in named_participles(room)[1] if word in WORST]
    assert worst == []


@pytest.mark.parametrize("room", sources())
def test_sentences_use_plain_verbs(room: str) -> None:
    assert [
        f"{path.relative_to(ROOT)}:{line} {word}"
        for path in sources()[room]
        for text, line in sentences(path)
        for word in DIALECT.findall(text)
    ] == []


def test_no_class_name_occurs_twice() -> None:
    """One name, one idea: an underscore in front makes no other name."""
    classes = Counter(
        node.name.lstrip("_")
        for room, paths in sources().items()
        if not room.startswith("tests")
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []
