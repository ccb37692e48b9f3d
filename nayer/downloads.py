"""The download of one file: from the service, or from the object store that it redirects to.

A download whose connection breaks is resumed at the byte where it broke. The store gets no API key. Where the
store refuses or cannot be reached, the service itself sends the file.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import BinaryIO

import httpx

from nayer.errors import ApiError, ServiceUnreachableError, raise_for_problem
from nayer.uploads import OnBytes

TRIES = 5  # in a row without a new byte
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 5.0


class Download:
    """Downloads one artifact.

    Args:
        http: the connection to the service; its headers contain the API key.
        path: of the artifact, relative to the address of the service.
        size: bytes that the service announced.
        on_bytes: called with (bytes received, bytes in all).
    """

    def __init__(self, http: httpx.Client, path: str, size: int, on_bytes: OnBytes | None = None):
        self._http = http
        self._path = path
        self._size = size
        self._on_bytes = on_bytes
        self._may_redirect = True
        self._digest = hashlib.sha256()
        self._received = 0

    def write_to(self, out: BinaryIO) -> str:
        """Write the whole file; returns the SHA-256 of the bytes received.

        Raises:
            ApiError: the service refused.
            ServiceUnreachableError: the connection broke again and again.
        """
        failures = 0
        while True:
            before = self._received
            try:
                self._read_on(out)
            except (httpx.TransportError, ApiError) as error:
                if isinstance(error, ApiError) and error.status not in (429, 503):
                    raise
                failures = 0 if self._received > before else failures + 1
                if failures == TRIES:
                    if isinstance(error, ApiError):
                        raise
                    reason = str(error) or type(error).__name__
                    raise ServiceUnreachableError(str(self._http.base_url), reason) from error
                time.sleep(min(FIRST_PAUSE_SECONDS * 2.0**failures, LONGEST_PAUSE_SECONDS))
            else:
                return self._digest.hexdigest()

    def _read_on(self, out: BinaryIO) -> None:
        with self._answer() as response:
            raise_for_problem(response)
            if response.status_code != httpx.codes.PARTIAL_CONTENT and self._received:
                out.seek(0)
                out.truncate()
                self._digest, self._received = hashlib.sha256(), 0
            for chunk in response.iter_bytes():  # without a buffer: a break loses none
                out.write(chunk)
                self._digest.update(chunk)
                self._received += len(chunk)
                if self._on_bytes:
                    self._on_bytes(self._received, self._size)

    @contextlib.contextmanager
    def _answer(self) -> Iterator[httpx.Response]:
        headers = {"Range": f"bytes={self._received}-"} if self._received else {}
        params = {} if self._may_redirect else {"redirect": "false"}
        with self._http.stream("GET", self._path, headers=headers, params=params) as response:
            if not response.has_redirect_location:
                yield response
                return
            target = response.url.join(response.headers["Location"])
        # After a failure of the store, the next try asks the service itself.
        self._may_redirect = False
        with httpx.stream("GET", target, headers=headers, timeout=self._http.timeout) as response:
            if not response.is_success:
                raise httpx.RemoteProtocolError(f"the store answered {response.status_code}")
            yield response
