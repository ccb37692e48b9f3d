"""Settings come from the environment, and do not show secrets."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.settings import Settings

URLS = {
    "database_url": "postgresql://user:secret@host/name",
    "redis_url": "redis://:secret@host:6379/0",
    "storage_url": "file:///var/lib/nayer",
}


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in URLS.items():
        monkeypatch.setenv(f"NAYER_{name.upper()}", value)
    monkeypatch.setenv("NAYER_LEASE_SECONDS", "2")
    monkeypatch.setenv("NAYER_CLIP_WEIGHTS", "/weights/clip.safetensors")
    settings = Settings()  # type: ignore[call-arg]  # filled from the environment

    assert settings.database_url == URLS["database_url"]
    assert (settings.lease_seconds, settings.max_attempts, settings.device) == (2, 3, "auto")
    assert settings.clip_weights == Path("/weights/clip.safetensors")


@pytest.mark.parametrize("missing", URLS)
def test_the_three_urls_have_no_default(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in URLS:
        monkeypatch.delenv(f"NAYER_{name.upper()}", raising=False)
    with pytest.raises(ValidationError, match=missing):
        Settings(**{name: url for name, url in URLS.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("database_url", "sqlite:///secret.db", "postgresql://"),
        ("redis_url", "valkey://:secret@host", "redis://"),
        ("storage_url", "/secret/folder", "file://"),
        ("storage_public_url", "https://secret.example", "needs a store at s3://"),
        ("lease_seconds", 0, "greater than 0"),
        ("keep_artifacts_seconds", 0, "greater than 0"),
        ("keep_inputs_seconds", -1, "greater than or equal to 0"),
        ("max_attempts", 0, "greater than or equal to 1"),
        ("processes_per_job", 0, "greater than or equal to 1"),
        ("processes_per_job", 65, "less than or equal to 64"),
        ("device", "secret", "'auto', 'cpu' or 'cuda'"),
    ],
)
def test_an_error_about_a_setting_does_not_repeat_its_value(name: str, value: object, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected) as failure:
        Settings(**{**URLS, name: value})
    assert "secret" not in str(failure.value)


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Settings(**URLS))
