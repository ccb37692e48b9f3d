"""The contents of docker-compose.yml, read by Compose itself, and of the Dockerfile."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent  # of the environment that the tests run in
EXAMPLE = ROOT / ".env.example"
SECRETS = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "NAYER_API_KEY")


def compose(
    env_file: Path, *arguments: str, folder: Path = ROOT, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the real Compose in a folder; it needs no engine to read files."""
    where = ["--project-directory", str(folder), "--env-file", str(env_file)]
    command = [str(PROGRAMS / "docker-compose"), *where, *arguments]
    # Nothing of this shell's own may fill a gap in the file.
    environment |= {"PATH": os.environ["PATH"], "HOME": str(env_file.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def block_of(heading: str, language: str = "sh") -> str:
    """The first code block under a heading of docs/operations.md."""
    _, _, rest = (ROOT / "docs" / "operations.md").read_text().partition(f"\n{heading}\n")
    section = re.split(r"\n##+ ", rest)[0]
    block = re.search(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    assert block is not None, f"no block of {language} under {heading}"
    return block[1]


def write_env(folder: Path, **changes: str) -> Path:
    """`.env.example` with its secrets filled in."""
    values = {name: f"{name.lower().replace('_', '')}0123456789" for name in SECRETS} | changes
    text = EXAMPLE.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"^#?{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1, f"{name} is not in .env.example once"
    (folder / ".env").write_text(text)
    return folder / ".env"


def services(env_file: Path, folder: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Every service as Compose reads it, with the values that it inherits from its image."""
    result = compose(env_file, "--profile", "*", "config", "--format", "json", folder=folder)
    assert result.returncode == 0, result.stderr
    recipes: dict[str, dict[str, Any]] = json.loads(result.stdout.replace("$$", "$"))["services"]
    for service in recipes.values():
        if "build" in service:
            stage = targets()[service["build"]["target"]]
            service["environment"] = {**stage.environment, **service.get("environment", {})}
            service["command"] = service["command"] or stage.command
            service["user"] = service.get("user", stage.user)
            service["healthcheck"] = {**stage.healthcheck, **service.get("healthcheck", {})}
    return recipes


class Stage:
    """One stage of the Dockerfile, with the values that it inherits."""

    def __init__(self, parent: "Stage | None"):
        self.environment: dict[str, str] = dict(parent.environment) if parent else {}
        self.command: list[str] = parent.command if parent else []
        self.healthcheck: dict[str, Any] = dict(parent.healthcheck) if parent else {}
        self.user: str = parent.user if parent else "root"
        self.copied_from: list[str] = []
        self.installed: list[str] = []

    def apply(self, word: str, rest: str) -> None:
        if word == "ENV":
            self.environment.update(re.findall(r"(\w+)=(\S+)", rest))
        elif word == "CMD":
            self.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            options, _, command = rest.partition("CMD ")
            self.healthcheck = dict(re.findall(r"--([\w-]+)=(\S+)", options))
            self.healthcheck["test"] = ["CMD", *json.loads(command)]
        elif word == "USER":
            self.user = rest
        elif word == "COPY":
            self.copied_from += re.findall(r"--from=(\S+)", rest)
        elif word == "RUN":
            extras = re.findall(r"pip install [^\n]*\[([\w,]+)\]", rest)
            self.installed += [extra for names in extras for extra in names.split(",")]


def targets() -> Mapping[str, Stage]:
    """The stages of the Dockerfile by name."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    stage = Stage(None)
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(stages.get(base))
        elif word:
            stage.apply(word, rest)
    return stages
