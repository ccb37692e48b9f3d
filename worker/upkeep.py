"""`python -m worker.upkeep`: the loop around `jobs.service.for_upkeep`. Any number may run at once."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable

from jobs.errors import ServiceUnavailable
from jobs.files.store import Storage
from jobs.service.for_upkeep import UpkeepJobs
from jobs.service.for_webhooks import WebhookJobs
from jobs.service.resources import Resources
from jobs.settings import Settings
from worker import logs
from worker.webhooks import Courier

logger = logging.getLogger(__name__)


class Upkeep:
    """Rings again, reaps, ends overdue jobs, sweeps, and sends to web hooks; an outage only delays it.

    Args:
        settings: intervals and limits.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._resources = Resources.open(settings)
        self._jobs = UpkeepJobs(self._resources)
        self._storage = Storage.open(settings.storage_url)
        self._courier = Courier(WebhookJobs(self._resources))
        self._reap_from = 0.0
        self._sweep_from = time.monotonic() + settings.sweep_seconds

    def run(self, stop: threading.Event) -> None:
        """Do one round after the other until `stop` is set.

        Web hooks have a thread of their own: a slow receiver must not delay lost jobs.
        """
        courier = threading.Thread(target=self._deliver, args=(stop,), name="web hooks")
        courier.start()
        while not stop.is_set():
            self.round()
            stop.wait(self._settings.upkeep_seconds)
        courier.join()

    def round(self) -> None:
        """Do each duty that is due, once."""
        if time.monotonic() >= self._reap_from and not self._attempt("reap", self._reap):
            # While the database was away no lease could be renewed: live holders get time to do so.
            self._reap_from = time.monotonic() + self._settings.lease_seconds
        self._attempt("expire", self._jobs.expire)
        self._attempt("ring again", self._jobs.ring_again)
        if time.monotonic() >= self._sweep_from:
            self._sweep_from = time.monotonic() + self._settings.sweep_seconds
            self._attempt("sweep", self._sweep)

    def close(self) -> None:
        """Close all connections."""
        self._resources.close()

    def _attempt(self, duty: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except ServiceUnavailable as error:
            logger.warning("could not %s: %s", duty, error.message)
            return False
        except Exception:  # a bug in one of its duties must not end the loop
            logger.exception("could not %s", duty)
        return True

    def _deliver(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._attempt("deliver to web hooks", lambda: self._courier.deliver(stop))
            stop.wait(self._settings.upkeep_seconds)

    def _reap(self) -> None:
        if count := self._jobs.reap():
            logger.warning("%d jobs were taken from silent workers", count)

    def _sweep(self) -> None:
        report = self._jobs.sweep(self._storage)
        logger.info("swept %d files and %d partial files", len(report.removed_keys), report.partial_files)
        if missing := report.missing_keys:
            logger.error("%d files that jobs name are not in the store: %s", len(missing), missing)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logs.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.closing(Upkeep(Settings())) as upkeep:
        upkeep.run(stop)


if __name__ == "__main__":
    main()
