"""The command line where only the base dependencies are installed, as `pip install nayer` leaves it."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.serve import PACKAGES

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process where no package of an extra can be imported."""
    absent = [package for packages in PACKAGES.values() for package in packages]
    program = (
        f"import sys; sys.modules |= dict.fromkeys({[*absent, 'numpy', 'redis']!r}); sys.argv[0] = 'nayer'\n"
        "from cli.main import app; app()"
    )
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [[], ["submit"], ["validate"], ["watch"], ["download"], ["serve"]])
def test_every_help_is_printed(command: list[str]) -> None:
    result = run(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: nayer" in result.stdout


def test_a_command_of_the_client_works() -> None:
    result = run("list", "--url", "http://127.0.0.1:9")
    assert result.returncode == 2
    assert "service_unreachable" in result.stderr


def test_serve_names_the_extras_to_install(tmp_path: Path) -> None:
    result = run("serve", "--json", "--data-dir", str(tmp_path / "data"))
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "packages_missing"
    assert "celery" in error["message"]
    assert error["hint"] == "Install them: pip install 'nayer[api,core,local]'."
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


def test_fetch_encoders_names_the_extra_to_install() -> None:
    result = run("fetch-encoders")
    assert result.returncode == 2
    assert "pip install 'nayer[core]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_extras_that_are_named_exist_and_bring_the_packages() -> None:
    hints = re.findall(r'install="([a-z,]+)"', (ROOT / "cli" / "serve.py").read_text())
    assert hints
    assert {extra for hint in hints for extra in hint.split(",")} <= EXTRAS.keys()
    distributions = importlib.metadata.packages_distributions()
    for extra, packages in PACKAGES.items():
        declared = {canonicalize_name(Requirement(line).name) for line in EXTRAS[extra]}
        for package in packages:
            assert declared & set(map(canonicalize_name, distributions[package])), package
