"""Sends messages to web hooks: many at once, each with little time and to checked addresses only.

The addresses of a host are asked for once, all of them are judged, and the connection goes to one that
was judged: a name that changes its mind between the check and the call (DNS rebinding) gains nothing.
"""

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import version

import httpx

from jobs.errors import ServiceUnavailable
from jobs.service.for_webhooks import WebhookJobs
from jobs.webhooks.addresses import is_public
from jobs.webhooks.deliveries import Answer, DueDelivery

BATCH = 20
WRITERS = 4  # connections to the database at once
ATTEMPT_SECONDS = 10  # from the name to the status, however slowly a receiver drips
CONNECT_SECONDS = 3  # for one of several addresses

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

logger = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole URLs, which may hold tokens


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host.

    Raises:
        OSError: it has none.
    """
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class Courier:
    """Takes what is due, sends it, and writes down the answers.

    Args:
        service: where messages are taken from.
        permits: decides whether an address may be called; public ones, unless the operator allows all.
        resolve: gives the addresses of a host.
        tls: what certificates are checked against; the bundle of `certifi`, or `SSL_CERT_FILE`.
    """

    def __init__(
        self,
        service: WebhookJobs,
        permits: Callable[[str], bool] | None = None,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ):
        allow_all = service.allows_private_addresses
        self._service = service
        self._permits = permits or ((lambda _: True) if allow_all else is_public)
        self._resolve = resolve
        self._tls = tls or httpx.create_ssl_context()
        self._agent = f"nayer/{version('nayer')}"

    def deliver(self, stop: threading.Event) -> None:
        """Send what is due, batch by batch, until nothing is or `stop` is set.

        Raises:
            ServiceUnavailable: the database does not answer; what was taken will be due again.
        """
        while not stop.is_set() and self.round() == BATCH:
            pass

    def round(self) -> int:
        """Send one batch, and return how many messages it held."""
        batch = self._service.take_deliveries(BATCH)
        if batch:
            asyncio.run(self._deliver_all(batch))
        return len(batch)

    async def _deliver_all(self, batch: Sequence[DueDelivery]) -> None:
        # Looking up a name blocks a thread for as long as the system likes. Each message has its own
        # thread, so that slow lookups do not keep others from writing their answers.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(BATCH + WRITERS))
        writing = asyncio.Semaphore(WRITERS)
        await asyncio.gather(*(self._deliver(due, writing) for due in batch))

    async def _deliver(self, due: DueDelivery, writing: asyncio.Semaphore) -> None:
        try:
            answer = await self._attempt(due)
            result = answer.error or answer.status_code
            logger.info("%s of job %s, attempt %d: %s", due.event, due.job_id, due.attempt, result)
            async with writing:
                await asyncio.to_thread(self._service.settle_delivery, due, answer)
        except ServiceUnavailable as error:
            logger.warning("%s of job %s will be sent again: %s", due.event, due.job_id, error.message)
        except Exception:  # a bug with one message must not stop the others
            logger.exception("%s of job %s could not be sent", due.event, due.job_id)

    async def _attempt(self, due: DueDelivery) -> Answer:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await self._call(due, httpx.URL(due.url))
        except (TimeoutError, httpx.TimeoutException):
            return Answer(error="timeout")
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return Answer(error="connection_failed")

    async def _call(self, due: DueDelivery, url: httpx.URL) -> Answer:
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            return Answer(error="unresolvable")
        if not all(self._permits(address) for address in addresses):
            return Answer(error="address_refused")
        *others, last = addresses
        for address in others:
            try:
                return await self._post(due, url, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._post(due, url, last)

    async def _post(self, due: DueDelivery, url: httpx.URL, address: str) -> Answer:
        headers = {
            **due.headers(),
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "Connection": "close",
        }
        timeout = httpx.Timeout(ATTEMPT_SECONDS, connect=CONNECT_SECONDS)
        # One client a message: connections to one address are not shared between names. No proxy of
        # the environment: it would look the name up once more.
        async with (
            httpx.AsyncClient(
                verify=self._tls, trust_env=False, follow_redirects=False, timeout=timeout
            ) as client,
            client.stream(
                "POST",
                url.copy_with(host=address),
                content=due.content,
                headers=headers,
                # The certificate is checked against the name, though the call goes to an address.
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            ) as response,
        ):
            # Its body is not read.
            return Answer(response.status_code, retry_after=_retry_after(response.headers))


def _retry_after(headers: httpx.Headers) -> timedelta:
    seconds = headers.get("retry-after", "")
    return timedelta(seconds=int(seconds)) if re.fullmatch("[0-9]{1,9}", seconds) else timedelta()
