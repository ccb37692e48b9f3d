"""Rules of the architecture: who may import whom, where torch is used, how long a file may be."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("api", "cli", "jobs", "migrations", "nayer", "nayer_core", "worker")
FUNCTION_LINES, FILE_LINES = 50, 300

# A suppression says its reason behind it, after its codes.
SUPPRESSION = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|type:\s*ignore(?:\[[\w,\s-]+\])?)(?P<reason>.*)"
)


def sources(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((ROOT / room).rglob("*.py"))


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_rooms_import_only_what_they_may() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rooms_reach_nothing_of_the_core_but_its_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (apart,) = [contract for contract in contracts if contract["id"] == "only-the-contract"]
    core = {path.name for path in (ROOT / "nayer_core").iterdir() if path.is_dir() and path.name[0] != "_"}
    protected = {name.removeprefix("nayer_core.") for name in apart["protected_modules"]}
    assert core - protected == {"contract"}


def allowed_importers(protected: str) -> tuple[str, ...]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rule,) = [rule for rule in contracts if protected in rule.get("protected_modules", ())]
    return tuple(rule["allowed_importers"])


def unreported(module: str, protected: str, folder: Path, rooms: Sequence[str]) -> set[str]:
    """Import a module in each file of these rooms that may not; return the files that pass the contracts."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    wrong = set()
    for path in sources(*ROOMS):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        name = ".".join(copy.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        is_allowed = any(f"{name}.".startswith(f"{allowed}.") for allowed in allowed_importers(protected))
        is_wrong = not is_allowed and name.split(".")[0] in rooms
        copy.write_text(path.read_text() + (f"\nimport {module}\n" if is_wrong else ""))
        wrong |= {name} if is_wrong else set()
    linter = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    result = subprocess.run(linter, cwd=folder, capture_output=True, text=True)
    assert result.returncode != 0
    return wrong - set(re.findall(rf"^- (\S+) -> {module} ", result.stdout, flags=re.MULTILINE))


@pytest.mark.parametrize("library", ["obstore", "sqlalchemy", "celery", "torch", "fastapi", "httpx", "typer"])
def test_a_library_imported_in_the_wrong_file_breaks_a_contract(library: str, tmp_path: Path) -> None:
    """The import is added to every other file of every room at once: the contracts cover each file."""
    assert unreported(library, library, tmp_path, ROOMS) == set()


@pytest.mark.parametrize(
    ("module", "protected"),
    [
        ("jobs.rows.tables", "jobs.rows"),
        *((f"jobs.service.for_{name}",) * 2 for name in ("clients", "workers", "upkeep", "webhooks")),
    ],
)
def test_a_service_imported_by_the_wrong_caller_breaks_a_contract(
    module: str, protected: str, tmp_path: Path
) -> None:
    """The API and the workers cannot import what they may not call."""
    assert unreported(module, protected, tmp_path, ("api", "cli", "worker")) == set()


@pytest.mark.parametrize(
    "module", ["api.main", "worker.tasks", "worker.upkeep", "cli.main", "jobs.service.for_upkeep"]
)
def test_torch_stays_in_the_core(module: str) -> None:
    heavy = "torch torchvision open_clip timm transformers sentence_transformers"
    program = f"import sys, {module}; print(*(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"importing {module} imports {done.stdout}"


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(*ROOMS)}
    long = [f"{at(path, 1)} has {length} lines" for path, length in lengths.items() if length > FILE_LINES]
    assert not long, f"more than {FILE_LINES} lines; divide by thought, not by length:\n" + "\n".join(long)


def test_no_function_is_too_long() -> None:
    long = [
        f"{at(path, node.lineno)} {node.name} has {length} lines"
        for path in sources(*ROOMS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, f"more than {FUNCTION_LINES} lines; a function is one thought:\n" + "\n".join(long)


def mute_suppressions(path: Path) -> Iterator[str]:
    """Lines with a suppression that has no reason behind it and none in a comment just above."""
    before = ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = SUPPRESSION.search(line)
        if match and len(match["reason"].strip(" -#:")) < 8 and not before.lstrip().startswith("#"):
            yield at(path, number)
        before = line


def test_a_suppression_says_its_reason() -> None:
    mute = [place for path in sources(*ROOMS, "examples", "benchmarks") for place in mute_suppressions(path)]
    assert not mute, "a noqa or type: ignore without its reason:\n" + "\n".join(mute)


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    places = [
        at(path, number)
        for path in sources(*ROOMS, "examples", "benchmarks")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if later.search(line)
    ]
    assert not places, "\n".join(places)


def test_no_file_has_a_name_that_says_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    places = [
        at(path, 1) for path in sources(*ROOMS) if path.stem in nothing or path.stem == path.parent.name
    ]
    assert not places, "name it after what it does:\n" + "\n".join(places)


def test_no_work_is_done_with_the_global_generator_or_a_fixed_device() -> None:
    fixed = re.compile(r"\.cuda\(\)|np\.random\.\w+\(|(?<![\w.])random\.\w+\(")
    places = [
        at(path, number)
        for path in sources("nayer_core")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if fixed.search(line)
    ]
    assert not places, "seed, device and generator are arguments:\n" + "\n".join(places)
