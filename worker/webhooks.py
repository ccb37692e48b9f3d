"""Sends messages to web hooks: many at once, each with a short time limit and to checked addresses only.

The addresses of a host are resolved once, all of them are checked, and the connection goes to one of
them. So a name whose addresses change between the check and the call (DNS rebinding) gains nothing.
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
ATTEMPT_SECONDS = 10  # from the look-up of the name to the status, even if a receiver sends slowly
CONNECT_SECONDS = 3  # for one of several addresses

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

logger = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole URLs, which may hold tokens


async def resolve(host: str, port: int) -> list[str]:
    """Look up the addresses of a host with the system's resolver.

    Raises:
        OSError: it has none.
    """
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class Courier:
    """Takes due messages, sends them, and writes the outcomes.

    Args:
        service: the source of messages.
        permits: decides whether an address may be called; public ones, unless the operator allows all.
        resolve: looks up the addresses of a host.
        tls: the trusted certificates; by default the bundle of `certifi`, or `SSL_CERT_FILE`.
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
        """Send due messages, batch by batch, until none is left or `stop` is set.

        Raises:
            ServiceUnavailable: the database does not answer; messages that were taken become due again.
        """
        while not stop.is_set() and self.round() == BATCH:
            pass

    def round(self) -> int:
        """Send one batch, and return its number of messages."""
        batch = self._service.take_deliveries(BATCH)
        if batch:
            asyncio.run(self._deliver_all(batch))
        return len(batch)

    async def _deliver_all(self, batch: Sequence[DueDelivery]) -> None:
        # A look-up of a name can block a thread for a long time. Each message has its own thread, so that
        # slow look-ups do not delay the outcomes of other messages.
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
        # One client for each message: names do not share connections to one address. No proxy of the
        # environment: it would look up the name once more.
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
            # The body is not read.
            return Answer(response.status_code, retry_after=_retry_after(response.headers))


def _retry_after(headers: httpx.Headers) -> timedelta:
    seconds = headers.get("retry-after", "")
    return timedelta(seconds=int(seconds)) if re.fullmatch("[0-9]{1,9}", seconds) else timedelta()
