"""What the documents say of the code, held equal to the code."""

import re
from pathlib import Path
from typing import get_args

import pytest

from api.problems import KINDS
from jobs.settings import Settings
from jobs.values.log import EventType
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.errors import ErrorCode

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rows(document: str, heading: str) -> list[list[str]]:
    """Cells of the table under a heading, its first two lines left out."""
    _, _, rest = (ROOT / document).read_text().partition(f"\n## {heading}\n")
    assert rest, f"{document} has no heading {heading}"
    section = rest.partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_code_of_a_request_is_told_as_the_service_tells_it() -> None:
    told = {row[0].strip("`"): row[1:] for row in rows("docs/http-api.md", "Errors of requests")}
    assert told == {code: [str(kind.status), kind.title, kind.hint] for code, kind in KINDS.items()}


def test_every_code_of_a_job_is_told() -> None:
    told = [row[0].strip("`") for row in rows("docs/http-api.md", "Errors of jobs")]
    assert told == [code.value for code in ErrorCode]


def test_every_warning_is_told() -> None:
    document = (ROOT / "docs/http-api.md").read_text()
    rooms = (ROOT / "nayer_core", ROOT / "worker")
    source = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    raised = set(re.findall(r'WarningEvent\(\s*code="(\w+)"', source))
    assert raised
    assert {code for code in raised if f"`{code}`" not in document} == set()


def test_every_kind_of_event_is_told() -> None:
    told = {row[0].strip("`") for row in rows("docs/http-api.md", "Following a job")}
    assert told == set(get_args(EventType))


def test_every_setting_is_told_with_its_default() -> None:
    told = {row[0].strip("`"): row[1] for row in rows("docs/operations.md", "Settings")}
    assert set(told) == {f"NAYER_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if name in ("data_dir", "scratch_dir") or field.is_required():
            continue
        expected = "" if field.default is None else str(field.default).lower()
        assert told[f"NAYER_{name.upper()}"] == expected, name


def test_every_call_is_told() -> None:
    from fastapi.routing import iter_route_contexts

    from api.main import create_app

    settings = Settings(
        database_url="postgresql://nobody@127.0.0.1:9/nothing",
        redis_url="redis://127.0.0.1:9/0",
        storage_url="s3://nothing",
    )
    document = (ROOT / "docs/http-api.md").read_text().replace("{id}", "{job_id}")
    known = {route.path for route in iter_route_contexts(create_app(settings).routes) if route.path}
    known = {path for path in known if not path.startswith("/openapi")}
    assert len(known) > 10
    for path in known:
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
