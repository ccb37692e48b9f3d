"""Messages to web hooks: their content, their signature, and the times of their attempts."""

import base64
import hashlib
import hmac
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from nayer_core.contract.webhook import SECRET_PREFIX

# With delays of 10 s, 30 s, 90 s, ... 18 h the last attempt is 27 hours after the first.
MAX_ATTEMPTS = 10
FIRST_DELAY = timedelta(seconds=10)
DELAY_FACTOR = 3
LONGEST_DELAY = timedelta(days=1)  # that a receiver may request
JITTER = 0.2  # messages that fail together, because a receiver does not answer, are not retried together

GONE = 410

# Why there is no status.
DeliveryError = Literal["timeout", "unresolvable", "address_refused", "connection_failed"]


class DeliveryStatus(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """A message to the web hook of a job, as a client may see it.

    Args:
        id: the `webhook-id` of every attempt; a receiver recognises a repeated message by it.
        event: as in "job.succeeded".
        attempts: the number of attempts, including one in progress.
        last_status_code: the status of the last attempt's response; None if there was no response.
        last_error: why there was no response.
        next_attempt_at: the time of the next attempt; None if there is none.
    """

    id: str
    job_id: str
    event: str
    status: DeliveryStatus
    attempts: int
    last_status_code: int | None
    last_error: DeliveryError | None
    next_attempt_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True)
class DueDelivery:
    """A message that its taker must send now.

    Args:
        attempt: counts from 1; distinguishes this taker's answer from a later one's.
        taken_at: the database's time.
        content: the exact bytes to send.
    """

    id: str
    job_id: str
    event: str
    attempt: int
    taken_at: datetime
    url: str = field(repr=False)  # it may hold a token
    secret: str | None = field(repr=False)
    content: bytes = field(repr=False)

    def headers(self) -> dict[str, str]:
        """The headers of Standard Webhooks; without a secret there is no signature."""
        timestamp = int(self.taken_at.timestamp())
        headers = {"webhook-id": self.id, "webhook-timestamp": str(timestamp)}
        if self.secret is not None:
            headers["webhook-signature"] = sign(self.secret, self.id, timestamp, self.content)
        return headers


@dataclass(frozen=True)
class Answer:
    """The outcome of one attempt: a status, or why there is none.

    Args:
        retry_after: the delay that the receiver requests, where it gives one in seconds.
    """

    status_code: int | None = None
    error: DeliveryError | None = None
    retry_after: timedelta = timedelta()

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.status_code is not None and 200 <= self.status_code < 300


def sign(secret: str, message_id: str, timestamp: int, content: bytes) -> str:
    """Sign a message with HMAC-SHA256 over id, seconds since 1970 and content (scheme v1)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    message = f"{message_id}.{timestamp}.".encode() + content
    return "v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()


def retry_delay(attempts: int, chance: float, retry_after: timedelta = timedelta()) -> timedelta | None:
    """Compute how long to wait after a failed attempt; None where it was the last.

    Args:
        attempts: how many there were, at least 1.
        chance: in [0, 1), a new one for each; spreads the delay by `JITTER` to both sides.
        retry_after: the receiver's request; never shortens the delay.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    jitter = 1 + JITTER * (2 * chance - 1)
    own = FIRST_DELAY * (jitter * math.pow(DELAY_FACTOR, attempts - 1))
    return max(own, min(retry_after, LONGEST_DELAY))
