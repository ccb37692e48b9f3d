"""The one service layer over jobs, used by api and worker alike.

Every method is one transaction; doorbells ring after its commit. A method may raise, beside what it
tells, `ServiceUnavailable` when the database does not answer: nothing was half done, and the call may
be repeated.
"""

from typing import Self

from jobs.queue import Doorbell
from jobs.rows.database import Database
from jobs.service.for_clients import ClientSide
from jobs.service.for_webhooks import WebhookSide
from jobs.service.for_workers import WorkerSide
from jobs.settings import Settings


class JobService(ClientSide, WorkerSide, WebhookSide):
    """Jobs, as the edges see them. Safe to share between threads; open it after a fork.

    Args:
        database: where the rows are.
        doorbell: rung after commit, so that a worker looks at once.
        settings: lease and attempt limits.
    """

    def __init__(self, database: Database, doorbell: Doorbell, settings: Settings):
        self.database = database
        self.doorbell = doorbell
        self.settings = settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Assemble the service from its settings; connects to nothing yet."""
        return cls(Database(settings.database_url), Doorbell(settings.redis_url), settings)

    def close(self) -> None:
        """Give back all connections."""
        self.database.close()
        self.doorbell.close()
