"""The documents agree with the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from api.problems import KINDS
from jobs.settings import Settings
from jobs.states import TRANSITIONS
from jobs.values.log import EventType
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.errors import ErrorCode
from tests.test_words import DIALECT_OF_DOCUMENTS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def rows(document: str, heading: str) -> list[list[str]]:
    """Cells of the table under a heading, without its first two lines."""
    _, _, rest = (ROOT / document).read_text().partition(f"\n## {heading}\n")
    assert rest, f"{document} has no heading {heading}"
    section = rest.partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_code_of_a_request_is_documented_as_it_is_answered() -> None:
    documented = {row[0].strip("`"): row[1:] for row in rows("docs/http-api.md", "Errors of requests")}
    assert documented == {code: [str(kind.status), kind.title, kind.hint] for code, kind in KINDS.items()}


def test_every_code_of_a_job_is_documented() -> None:
    documented = [row[0].strip("`") for row in rows("docs/http-api.md", "Errors of jobs")]
    assert documented == [code.value for code in ErrorCode]


def test_every_warning_is_documented() -> None:
    document = (ROOT / "docs/http-api.md").read_text()
    rooms = (ROOT / "nayer_core", ROOT / "worker")
    source = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    raised = set(re.findall(r'WarningEvent\(\s*code="(\w+)"', source))
    assert raised
    assert {code for code in raised if f"`{code}`" not in document} == set()


def test_every_kind_of_event_is_documented() -> None:
    documented = {row[0].strip("`") for row in rows("docs/http-api.md", "Following a job")}
    assert documented == set(get_args(EventType))


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1] for row in rows("docs/settings.md", "Environment variables")}
    assert set(documented) == {f"NAYER_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if name in ("data_dir", "scratch_dir") or field.is_required():
            continue
        expected = "" if field.default is None else str(field.default).lower()
        assert documented[f"NAYER_{name.upper()}"] == expected, name


def test_every_call_is_documented() -> None:
    from fastapi.routing import iter_route_contexts

    from api.main import create_app

    settings = Settings(
        database_url="postgresql://nobody@127.0.0.1:9/nothing",
        redis_url="redis://127.0.0.1:9/0",
        storage_url="s3://nothing",
    )
    document = (ROOT / "docs/http-api.md").read_text().replace("{id}", "{job_id}")
    paths = {route.path for route in iter_route_contexts(create_app(settings).routes) if route.path}
    paths = {path for path in paths if not path.startswith("/openapi")}
    assert len(paths) > 10
    for path in paths:
        end = path.rsplit("/", 1)[-1]
        assert path in document or f"`/{end}`" in document or f"/{end}`" in document, path


def test_names_of_the_configuration_are_real() -> None:
    document = (ROOT / "docs/algorithm.md").read_text()
    used = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", document))
    packages = "".join(path.read_text() for path in (ROOT / "nayer_core").rglob("*.py"))
    assert {name for name in used if name not in DistillConfig.model_fields and name not in packages} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), f"{target} in {path.name}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for name in re.findall(r"`([\w/.-]+\.(?:py|toml|yml))`", text):
        places = [ROOT / name, ROOT / "nayer_core" / name]
        assert any(place.exists() for place in places), f"{name} in {path.name}"


def named_in_the_tree() -> Iterator[str]:
    """Paths of the tree in docs/architecture.md, where two spaces of indentation are a level."""
    _, _, rest = (ROOT / "docs/architecture.md").read_text().partition("\n## The tree\n\n```\n")
    folders: list[str] = []
    for line in rest.partition("```")[0].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        folders[level:] = [line.split()[0].rstrip("/")]
        yield "/".join(folders)


def folders_with_programs() -> Iterator[str]:
    """Every folder of the checkout with Python files, and of `tests` the top one alone."""
    for path in ROOT.glob("*/__init__.py"):
        top = path.parent
        yield top.name
        if top.name != "tests":
            files = (file for file in top.rglob("*.py") if file.parent != top)
            yield from {str(file.parent.relative_to(ROOT)) for file in files}


def test_the_tree_names_every_folder_and_nothing_else() -> None:
    names = list(named_in_the_tree())
    assert len(names) == len(set(names))
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert set(folders_with_programs()) - set(names) == set()


def test_the_tree_is_drawn_once() -> None:
    drawings = [
        path for path in DOCUMENTS if re.search(r"^(nayer_core|jobs)/ ", path.read_text(), re.MULTILINE)
    ]
    assert [path.name for path in drawings] == ["architecture.md"]


def test_the_diagram_of_states_has_the_steps_of_the_code() -> None:
    (diagram,) = (
        block
        for path in DOCUMENTS
        for block in re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", path.read_text(), re.DOTALL)
    )
    arrows = re.findall(r"^ +(\w+) --> (\w+)", diagram, re.MULTILINE)
    steps = {(str(old), str(new)) for old, allowed in TRANSITIONS.items() for new in allowed}
    assert len(arrows) == len(set(arrows))
    assert set(arrows) == steps


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", index))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} | {
        "decisions/README.md"
    }


def test_every_decision_is_in_its_index() -> None:
    folder = ROOT / "docs/decisions"
    linked = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert linked == sorted(path.name for path in folder.glob("0*.md"))


def commands(pattern: str) -> set[str]:
    return {match for path in DOCUMENTS for match in re.findall(pattern, path.read_text())}


def test_targets_of_make_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    names = commands(r"(?:`|^|\n)make ([a-z-]+)")
    assert len(names) > 4
    assert names <= targets


def test_commands_of_nayer_that_are_named_exist() -> None:
    import typer

    from cli.main import app

    group = typer.main.get_command(app)
    names = commands(r"(?:`|\n)nayer ([a-z-]+)")
    assert len(names) > 4
    assert names <= set(group.commands)  # type: ignore[attr-defined]  # a group has them


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_is_written_in_plain_english(path: Path) -> None:
    """Rows of tables that begin with a name in code are left out: they quote the service."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("| `")]
    assert [line for line in lines if DIALECT_OF_DOCUMENTS.search(line)] == []
