"""`.env` holds every secret: `make env` writes it, and it stays out of the repository."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deployment.recipes import EXAMPLE, ROOT, SECRETS, compose


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make env` needs."""
    for name in ("Makefile", ".env.example", ".gitignore", "docker-compose.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make_env(folder: Path) -> str:
    command = ["sh", "-c", "umask 022 && make --no-print-directory env"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_make_env_writes_five_secrets_that_only_the_owner_can_read(checkout: Path) -> None:
    make_env(checkout)
    env_file = checkout / ".env"
    assert env_file.stat().st_mode & 0o777 == 0o600
    secrets = dict(re.findall(r"^(\w+)=(\w+)$", env_file.read_text(), flags=re.MULTILINE))
    assert set(secrets) == set(SECRETS)
    assert len(set(secrets.values())) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets.values())
    blanked = re.sub(r"^(\w+)=\w+$", r"\1=", env_file.read_text(), flags=re.MULTILINE)
    assert blanked == EXAMPLE.read_text()
    assert compose(env_file, "config", "-q", folder=checkout).returncode == 0


def test_make_env_never_changes_a_file_that_exists(checkout: Path) -> None:
    (checkout / ".env").write_text("POSTGRES_PASSWORD=of-a-running-service\n")
    assert ".env exists" in make_env(checkout)
    assert (checkout / ".env").read_text() == "POSTGRES_PASSWORD=of-a-running-service\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git, which is not on this machine")
def test_git_ignores_the_files_with_secrets(checkout: Path) -> None:
    private = [".env", ".env.new", ".env.bak", "docker-compose.override.yml"]
    names = " ".join([*private, ".env.example", "docker-compose.yml"])
    command = ["sh", "-c", f"git init --quiet && git check-ignore {names}"]
    ignored = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert ignored.split() == private
