from pathlib import Path
from typing import Any

from jobs.settings import Settings
from worker.process.environment import core_environment, embed_environment

INHERITED = {
    "PATH": "/bin",
    "CUDA_VISIBLE_DEVICES": "1",
    "NCCL_DEBUG": "WARN",
    "OMP_NUM_THREADS": "2",
    "NAYER_DATABASE_URL": "postgresql://u:secret@h/d",
    "NAYER_REDIS_URL": "redis://:secret@h",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "HF_TOKEN": "secret",
    "HTTPS_PROXY": "http://u:secret@proxy",
    "PYTHONPATH": "/somewhere",
    "LD_PRELOAD": "/evil.so",
}


def settings(**values: Any) -> Settings:
    return Settings(database_url="postgresql://h/d", redis_url="redis://h", storage_url="file:///s", **values)


def test_the_core_gets_variables_of_the_machine_and_no_secret(tmp_path: Path) -> None:
    environment = core_environment(tmp_path, INHERITED)
    assert environment == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "NCCL_DEBUG": "WARN",
        "OMP_NUM_THREADS": "2",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }


def test_embed_stays_offline_unless_the_operator_allows_the_hub(tmp_path: Path) -> None:
    environment = embed_environment(tmp_path, settings(clip_weights=tmp_path / "clip.pt"), INHERITED)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["NAYER_CLIP_WEIGHTS"] == str(tmp_path / "clip.pt")
    assert "secret" not in str(environment)


def test_embed_gets_the_proxy_where_the_hub_is_allowed(tmp_path: Path) -> None:
    environment = embed_environment(tmp_path, settings(allow_hub=True), INHERITED)
    assert environment["HF_HUB_OFFLINE"] == "0"
    assert environment["HTTPS_PROXY"] == INHERITED["HTTPS_PROXY"]
    assert "HF_TOKEN" not in environment
