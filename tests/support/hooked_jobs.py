"""Jobs that have something to tell, and what became of it."""

from typing import Any

import psycopg

from jobs.webhooks.deliveries import Delivery
from tests.support.jobs import a_spec, submitted
from tests.support.receiver import SECRET
from tests.support.services import Services


def ended(service: Services, url: str, **webhook: Any) -> str:
    """A job that was cancelled, with a message that tells of it."""
    spec = a_spec(webhook={"url": url, "secret": SECRET, **webhook})
    return service.clients.cancel(submitted(service, spec=spec).id).id


def only(service: Services, job_id: str) -> Delivery:
    """The only message of a job."""
    (delivery,) = service.clients.deliveries(job_id)[0]
    return delivery


def make_due(url: str) -> None:
    """Let the time come at which messages are tried again."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE delivery SET next_attempt_at = now() WHERE status = 'pending'")


def delete_messages(url: str) -> None:
    """Leave no message of other tests: after ten seconds those that failed are due again."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM delivery")
