"""The client as a package of its own: light to import, typed, and used as its docstring shows."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

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


@pytest.mark.parametrize("name", nayer.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert getattr(nayer, name).__doc__


def test_the_lines_of_the_docstring_give_a_student(
    serving: Serving,  # noqa: F811 - a fixture
    teacher: Path,  # noqa: F811 - a fixture
    tmp_path: Path,
) -> None:
    lines = [line for line in (nayer.__doc__ or "").splitlines() if line.startswith("    ")]
    program = textwrap.dedent("\n".join(lines)).replace("http://127.0.0.1:8000", serving.url)
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
    imports = f"import json, sys; sys.path.insert(0, {str(ROOT)!r}); import nayer; from pathlib import Path\n"
    subprocess.run([sys.executable, "-c", imports + program], cwd=tmp_path, check=True)
    assert (tmp_path / "student.safetensors").stat().st_size > 0
