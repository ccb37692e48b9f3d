"""The one service layer over jobs, used by api and worker alike.

Every method is one transaction; doorbells ring after its commit. A method may raise, beside what it
tells, `ServiceUnavailable` when the database does not answer: nothing was half done, and the call may
be repeated.
"""

from typing import Self

from jobs.client_side import ClientSide
from jobs.database import Database
from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.webhook_side import WebhookSide
from jobs.worker_side import WorkerSide


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
