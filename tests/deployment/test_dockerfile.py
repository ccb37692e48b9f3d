import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployment.recipes import PROGRAMS, ROOT, targets

SERVICE = {"alembic", "celery", "obstore", "psycopg", "pydantic-settings", "redis", "sqlalchemy"}
HEAVY = {"torch", "torchvision", "timm", "open-clip-torch", "sentence-transformers", "transformers"}


def test_hadolint_finds_nothing() -> None:
    result = subprocess.run(
        [PROGRAMS / "hadolint", "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_the_extras_exist() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {target: _extras(target) for target in ("api", "worker")}
    assert installed == {"api": ["api"], "worker": ["core", "service"]}
    assert {extra for extras in installed.values() for extra in extras} <= set(declared)


def test_the_api_image_has_no_torch() -> None:
    assert _requirements("nayer", *_extras("api")) & HEAVY == set()


def test_the_worker_image_has_torch() -> None:
    assert _requirements("nayer", *_extras("worker")) >= HEAVY


@pytest.mark.parametrize("target", ["api", "worker"])
def test_each_image_has_the_libraries_of_the_service(target: str) -> None:
    assert _requirements("nayer", *_extras(target)) >= SERVICE


def test_a_client_installs_nothing_of_the_service() -> None:
    assert _requirements("nayer") & (HEAVY | SERVICE | {"fastapi", "uvicorn", "numpy"}) == set()


def test_nothing_runs_as_root() -> None:
    for name in ("api", "worker"):
        user = targets()[name].user
        assert user.split(":")[0].isdigit(), "a name cannot be checked by an orchestrator"
        assert int(user.split(":")[0]) >= 1000


def test_the_context_holds_the_packages_and_nothing_private() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[lines.index("*") :][0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert let_in == packages | {"pyproject.toml", "README.md", "LICENSE"}


def _extras(target: str) -> list[str]:
    stages = targets()
    return [extra for source in stages[target].copied_from for extra in stages[source].installed]


def _requirements(distribution: str, *extras: str) -> set[str]:
    """Names of all packages that pip installs for a distribution with extras, read from metadata alone."""
    visited: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(distribution), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another platform
            continue
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    return {name for name, _ in visited}
