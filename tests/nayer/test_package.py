"""The client as a package of its own: light to import, typed, and used as its docstring shows."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import nayer
from tests.cli.conftest import serving, teacher  # noqa: F401 - fixtures
from tests.cli.test_submit import SETTINGS
from tests.support.serving import Serving

ROOT = Path(__file__).parents[2]
ABSENT = "typer rich celery sqlalchemy alembic psycopg obstore pydantic_settings torch numpy fastapi uvicorn"


def test_the_import_needs_neither_the_service_nor_the_command_line() -> None:
    program = f"""
        import sys
        sys.modules |= dict.fromkeys({ABSENT.split()!r})  # an import of one of them fails
        import nayer
        rooms = {{"api", "cli", "jobs", "migrations", "nayer_core", "worker"}} & set(sys.modules)
        print(*rooms)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(nayer.__file__).parent / "py.typed").exists()


def test_an_editable_install_is_found_above_a_checkout_of_the_same_name(tmp_path: Path) -> None:
    checkout, site = tmp_path / "nayer", tmp_path / "site"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "nayer", checkout / "nayer")
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, site], cwd=checkout, capture_output=True, check=True)
    (wheel,) = site.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    use = """if True:
        import site, sys
        site.addsitedir(sys.argv[1])
        sys.path.append(sys.argv[2])
        import nayer
        print(nayer.Client.__module__)
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # -S: the paths of this environment may name another checkout.
    command = [sys.executable, "-S", "-c", use, site, Path(httpx.__file__).parents[1]]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("nayer.client\n", 0), result.stderr


@pytest.mark.parametrize("name", nayer.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert getattr(nayer, name).__doc__


def docstring_example() -> str:
    lines = [line for line in (nayer.__doc__ or "").splitlines() if line.startswith("    ")]
    return "import json\nfrom pathlib import Path\nimport nayer\n" + textwrap.dedent("\n".join(lines))


def readme_example() -> str:
    match = re.search(
        r"<!-- tests/nayer/test_package.py runs this block -->\n```python\n(.*?)```",
        (ROOT / "README.md").read_text(),
        flags=re.DOTALL,
    )
    assert match is not None
    return match[1]


@pytest.mark.parametrize("example", [docstring_example, readme_example])
def test_the_example_downloads_a_student(
    example: Callable[[], str],
    serving: Serving,  # noqa: F811 - a fixture
    teacher: Path,  # noqa: F811 - a fixture
    tmp_path: Path,
) -> None:
    program = example().replace("http://127.0.0.1:8000", serving.url)
    config = {name: json.loads(value) for name, value in (setting.split("=") for setting in SETTINGS)}
    spec = {
        "labels": ["cat", "dog", "bird"],
        "teacher": {"input_size": [1, 8, 8], "normalization": {"mean": [0.5], "std": [0.5]}},
        "student": {"architecture": "wrn_10_1"},
        "preset": "quick",
        "config": config | {"epochs": 1},
        "text_encoder": {"name": "one_hot"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    shutil.copy(teacher, tmp_path / "teacher.pt")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "student.safetensors").stat().st_size > 0
