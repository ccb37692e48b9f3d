"""Messages to web hooks: what upkeep sends, and what clients see of it."""

import random
from datetime import timedelta

from jobs.rows import outbox, repository
from jobs.rows.database import Database
from jobs.webhooks.deliveries import Answer, Delivery, DueDelivery

# Longer than an attempt can take; a message whose sender vanished is sent again after this.
TAKEN_FOR = timedelta(seconds=60)


class WebhookSide:
    """The third of `JobService` that speaks with web hooks."""

    database: Database

    def take_deliveries(self, limit: int) -> list[DueDelivery]:
        """Take messages that are to be sent now; any number of senders may ask at once.

        Each belongs to its taker for a minute. What is not settled by then is given out again.
        """
        with self.database.transaction() as session:
            return outbox.take(session, TAKEN_FOR, limit)

    def settle_delivery(self, sent: DueDelivery, answer: Answer) -> None:
        """Write what came of an attempt; repeating it is harmless, and so is coming too late.

        A message that was not accepted is tried again, up to ten times in 27 hours. After 410 (Gone)
        the job's web hook is told nothing more.
        """
        with self.database.transaction() as session:
            chance = random.random()  # noqa: S311 - spreads load, and keeps no secret
            outbox.settle(session, sent, answer, chance)

    def deliveries(
        self, job_id: str, limit: int = 100, after: str | None = None
    ) -> tuple[list[Delivery], bool]:
        """Read the messages to a job's web hook, newest first, from behind `after`.

        Returns:
            At most `limit` of them, and whether there are more.

        Raises:
            JobNotFound: there is no such job.
            DeliveryNotFound: `after` names none of its messages.
        """
        with self.database.transaction() as session:
            repository.require_job(session, job_id)
            rows = outbox.read(session, job_id, limit + 1, after)
            return [row.as_delivery() for row in rows[:limit]], len(rows) > limit

    def redeliver(self, job_id: str, delivery_id: str) -> Delivery:
        """Have a message sent once more, at once, also one that was delivered or given up.

        Raises:
            JobNotFound: there is no such job.
            DeliveryNotFound: it has no such message.
        """
        with self.database.transaction() as session:
            repository.require_job(session, job_id)
            return outbox.send_again(session, job_id, delivery_id).as_delivery()
