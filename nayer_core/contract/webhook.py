"""The web hook of a job: receiver and events. The core itself calls nobody."""

import base64
import binascii
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator

# "job." and the status that was reached; a test holds them equal to the statuses of a job.
WebhookEvent = Literal[
    "job.queued", "job.running", "job.paused", "job.succeeded", "job.failed", "job.cancelled"
]
WEBHOOK_EVENTS: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
END_EVENTS: tuple[WebhookEvent, ...] = ("job.succeeded", "job.failed", "job.cancelled")

# Standard Webhooks: base64 of 24 to 64 random bytes behind this prefix.
SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, not one
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


class WebhookSpec(BaseModel):
    """A receiver of messages about the job, signed as Standard Webhooks say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpUrl = Field(description="http or https, with a public address; POSTed to.")
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1, max_length=len(WEBHOOK_EVENTS))] = Field(
        END_EVENTS, description="Events to send; by default the ends of a job."
    )
    # Excluded from every dump, so that it is never shown.
    secret: SecretStr | None = Field(
        None,
        exclude=True,
        description="whsec_ and base64 of 24 to 64 random bytes: signs each message, and is never shown "
        "again. Without one, messages are not signed.",
    )

    @field_validator("url")
    @classmethod
    def _names_a_receiver(cls, url: HttpUrl) -> HttpUrl:
        if url.username is not None or url.password is not None:
            raise ValueError("url must not hold a user name or password; use secret to sign messages")
        if url.fragment is not None:
            raise ValueError("url must not hold a fragment, for no server is sent one")
        return url

    @field_validator("events")
    @classmethod
    def _each_once(cls, events: tuple[WebhookEvent, ...]) -> tuple[WebhookEvent, ...]:
        return tuple(event for event in WEBHOOK_EVENTS if event in events)

    @field_validator("secret")
    @classmethod
    def _usable_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        rule = f"{SECRET_PREFIX} and base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"
        text = secret.get_secret_value()
        try:
            key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"secret must be {rule}, and this is no base64") from None
        if not text.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
            raise ValueError(f"secret must be {rule}, and this has {len(key)} bytes or another prefix")
        return secret
