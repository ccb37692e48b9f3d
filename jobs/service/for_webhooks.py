"""The operations of the sender of messages to web hooks: take due messages, and write the outcomes."""

import random
from datetime import timedelta

from jobs.rows import outbox
from jobs.service.resources import Resources
from jobs.webhooks.deliveries import Answer, DueDelivery

# Longer than an attempt can take. A message whose sender vanished is sent again after this.
TAKEN_FOR = timedelta(seconds=60)


class WebhookJobs:
    """The sender's operations on messages to web hooks. Every method is one transaction.

    A method may raise `ServiceUnavailable` when the database does not answer; the call may be repeated.

    Attributes:
        allows_private_addresses: whether the operator allows web hooks at addresses that are not public.
    """

    def __init__(self, resources: Resources):
        self.allows_private_addresses = resources.settings.webhook_private_addresses
        self._database = resources.database

    def take_deliveries(self, limit: int) -> list[DueDelivery]:
        """Take messages that are due; any number of senders may do so at once.

        Each belongs to its taker for a minute. A message that is not settled by then is due again.
        """
        with self._database.transaction() as session:
            return outbox.take(session, TAKEN_FOR, limit)

    def settle_delivery(self, due: DueDelivery, answer: Answer) -> None:
        """Write the outcome of an attempt; a repeated or late call changes nothing.

        A message that was not accepted is tried again, up to ten times in 27 hours. After 410 (Gone)
        the job's web hook gets no more messages.
        """
        with self._database.transaction() as session:
            chance = random.random()  # noqa: S311 - spreads load, and keeps no secret
            outbox.settle(session, due, answer, chance)
