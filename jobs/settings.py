"""The settings of an operator, read from `NAYER_*` environment variables."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]
AfterTheEnd = Annotated[float, Field(ge=0)]  # seconds; 0 is at once
Bytes = Annotated[int, Field(gt=0)]

KIB, MIB, GIB = 2**10, 2**20, 2**30
DAY = 24 * 3600


class Settings(BaseSettings):
    """The settings of api, worker and command line; the three URLs have no default.

    Each field is read from the variable of its name in capitals after `NAYER_`, as in
    `NAYER_DATABASE_URL`. URLs hold passwords and are kept out of `repr` and of error messages.
    """

    model_config = SettingsConfigDict(
        env_prefix="NAYER_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    database_url: str = Field(repr=False, description="postgresql://user:password@host:port/name")
    redis_url: str = Field(repr=False, description="redis://host:port/0")
    storage_url: str = Field(repr=False, description="file:///absolute/folder or s3://bucket[/prefix]")
    storage_public_url: str | None = Field(
        None,
        repr=False,
        description="https:// address at which clients reach the S3 store: downloads are redirected there.",
    )
    signed_url_seconds: Annotated[float, Field(ge=1, le=7 * DAY)] = Field(
        900, description="How long such a redirect can be followed, by the store's clock; at most a week."
    )
    data_dir: Path = Path.home() / ".local" / "share" / "nayer"
    scratch_dir: Path | None = Field(
        None, description="Job folders of the worker; the system's default if unset."
    )

    api_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="The Bearer token of clients; without it the API serves everyone, on loopback only.",
    )

    lease_seconds: Seconds = Field(30, description="How long a silent worker keeps its job.")
    upkeep_seconds: Seconds = Field(5, description="Pause between two rounds of upkeep.")
    ring_again_seconds: Seconds = Field(30, description="Upkeep rings again for a waiting job after this.")
    sweep_seconds: Seconds = Field(3600, description="Pause between two sweeps of the object store.")
    sweep_grace_seconds: Seconds = Field(
        3600, description="A file that no row names is removed only when older than this."
    )
    keep_uploads_seconds: AfterTheEnd = Field(
        0, description="Uploads stay this long after the end of a job that ended with its inspection."
    )
    keep_inputs_seconds: AfterTheEnd = Field(
        0, description="The teacher and other canonical files stay this long after the end of their job."
    )
    keep_checkpoints_seconds: AfterTheEnd = Field(
        0, description="Saved states of a run stay this long after the end of its job."
    )
    keep_artifacts_seconds: Seconds | None = Field(
        None, description="Artifacts can be downloaded this long after the end of their job; unset, for ever."
    )
    keep_jobs_seconds: Seconds | None = Field(
        None, description="A job is deleted, its log too, this long after its end; unset, never."
    )
    keep_embeddings_seconds: Seconds = Field(
        30 * DAY, description="Label-text embeddings are kept this long, for jobs with the same labels."
    )
    keep_banks_seconds: Seconds = Field(
        7 * DAY, description="A warm-up is kept this long after its last use, for jobs with `reuse_bank`."
    )
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        3, description="A job fails once this many of its attempts have crashed, hung or lost their worker."
    )

    max_teacher_bytes: Bytes = 2 * GIB
    max_evaluation_bytes: Bytes = 512 * MIB
    max_embeddings_bytes: Bytes = 64 * MIB
    max_spec_bytes: Bytes = 4 * MIB
    max_run_bytes: Bytes | None = Field(
        None,
        description="Largest estimate of memory that a run may have; unset, the memory of the machine that "
        "inspects it.",
    )

    inspect_seconds: Seconds = 120
    embed_seconds: Seconds = 300
    stall_seconds: Seconds = Field(300, description="A child that makes no step for this long is hung.")
    drain_seconds: Seconds = Field(60, description="Time for a stopping worker to save and release its jobs.")

    webhook_private_addresses: bool = Field(
        False, description="Whether web hooks may call addresses that are not public, as inside a company."
    )
    allow_hub: bool = Field(False, description="Whether `embed` may fetch encoder weights from the hub.")
    clip_weights: Path | None = Field(None, description="A local open_clip ViT-B/32 checkpoint.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes_per_job: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Processes that share a distillation: a GPU each, or with device cpu parts of the cores.",
    )
    checkpoint_seconds: Seconds = Field(
        60, description="Time between two checkpoints of a run: the most work that a lost worker costs."
    )

    @field_validator("database_url")
    @classmethod
    def _postgres_only(cls, url: str) -> str:
        return _require_scheme(url, "NAYER_DATABASE_URL", ("postgresql", "postgres", "postgresql+psycopg"))

    @field_validator("redis_url")
    @classmethod
    def _redis_protocol(cls, url: str) -> str:
        return _require_scheme(url, "NAYER_REDIS_URL", ("redis", "rediss"))

    @field_validator("storage_url")
    @classmethod
    def _known_store(cls, url: str) -> str:
        return _require_scheme(url, "NAYER_STORAGE_URL", ("file", "s3"))

    @field_validator("storage_public_url")
    @classmethod
    def _reached_by_http(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        if not str(info.data.get("storage_url", "s3://")).startswith("s3://"):
            raise ValueError("NAYER_STORAGE_PUBLIC_URL needs a store at s3://")
        return _require_scheme(url, "NAYER_STORAGE_PUBLIC_URL", ("https", "http"))


def _require_scheme(url: str, name: str, schemes: tuple[str, ...]) -> str:
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in schemes:
        raise ValueError(f"{name} must begin with one of {', '.join(s + '://' for s in schemes)}")
    return url
