"""A TCP proxy that a test can turn into a bad network or a bad server: no answer, no connection, a cut, a
wrong byte, half an answer, a late one, an error of HTTP.

It runs in a thread of its own. Between PostgreSQL and a program it can also stop a transaction at its
COMMIT. It finds the transaction by its bytes, as parameters are sent as text.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Literal

Mode = Literal["pass", "refuse", "hole"]
# The fate of a COMMIT that was stopped: sent on; dropped with its connection; sent on and the
# connection dropped before the answer.
Fate = Literal["forward", "cut", "unanswered"]

COMMIT = b"COMMIT\0"
REQUESTS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Hold:
    """The first transaction that contains a marker, to be stopped at its COMMIT.

    Args:
        marker: bytes in one of its statements.
    """

    def __init__(self, marker: bytes):
        self.marker = marker
        self.at_commit = threading.Event()
        self.by: Proxy | None = None
        self.fate: asyncio.Future[Fate] | None = None
        self.in_use = False

    def let(self, fate: Fate) -> None:
        """Decide what happens to the COMMIT."""
        if self.by is not None and self.fate is not None:
            self.by.call(self._decide(fate))

    async def _decide(self, fate: Fate) -> None:
        if self.fate is not None and not self.fate.done():
            self.fate.set_result(fate)


class Proxy:
    """Between a program and one server.

    Args:
        host, port: the server.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _lock = threading.Lock()

    def __init__(self, port: int, host: str = "127.0.0.1"):
        self._target = (host, port)
        self.mode: Mode = "pass"
        self.holds: list[Hold] = []
        self.flips: list[bytes] = []  # in the next piece that holds one of these, a bit of it is flipped
        self.breaks: list[bytes] = []  # the next piece that holds one of these ends in its middle
        self.delay = 0.0  # seconds by which every piece is late
        self.answers_503 = False  # to every request of HTTP
        self.fault_count = 0  # how often one of these struck
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._server = self.call(asyncio.start_server(self._serve, sock=self._listener))

    @classmethod
    def loop(cls) -> asyncio.AbstractEventLoop:
        with cls._lock:
            if cls._loop is None:
                cls._loop = asyncio.new_event_loop()
                threading.Thread(target=cls._loop.run_forever, daemon=True).start()
            return cls._loop

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop()).result(10)

    def turn(self, mode: Mode) -> None:
        """pass: bytes pass. refuse: connections are closed, new ones too. hole: no byte passes."""
        self.call(self._turn(mode))

    def disconnect(self) -> None:
        """Close every connection, once."""
        self.call(self._disconnect())

    def behave(self) -> None:
        """End all delays, wrong bytes and refusals."""
        self.flips.clear()
        self.breaks.clear()
        self.delay, self.answers_503 = 0.0, False

    def close(self) -> None:
        self.call(self._close())

    async def _turn(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "hole":
            self._open.clear()
        else:
            self._open.set()
        if mode == "refuse":
            await self._disconnect()

    async def _disconnect(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._disconnect()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mode == "refuse":
                return
            await self._open.wait()
            with contextlib.suppress(OSError):
                back, forth = await asyncio.open_connection(*self._target)
                self._writers.add(forth)
                try:
                    await self._pump_both(reader, writer, back, forth)
                finally:
                    self._writers.discard(forth)
                    forth.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
    ) -> None:
        pumps = [
            asyncio.create_task(self._pump(reader, forth, Conversation(self, writer))),
            asyncio.create_task(self._pump(back, writer, None)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, conversation: "Conversation | None"
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(1 << 16):
                await self._open.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                    self.fault_count += 1
                piece, broken = self._break(self._flip(piece))
                fate = await conversation.hear(piece) if conversation is not None else "forward"
                if fate == "cut":
                    return
                sink.write(piece)
                await sink.drain()
                if fate == "unanswered":
                    await asyncio.sleep(0.3)  # it arrives and is done; its answer does not come back
                    return
                if broken:
                    return

    def _break(self, piece: bytes) -> tuple[bytes, bool]:
        for marker in self.breaks:
            place = piece.find(marker)
            if place >= 0:
                self.breaks.remove(marker)
                self.fault_count += 1
                return piece[: place + len(marker) // 2], True
        return piece, False

    def _flip(self, piece: bytes) -> bytes:
        for marker in self.flips:
            place = piece.find(marker)
            if place >= 0:
                self.flips.remove(marker)
                self.fault_count += 1
                place += len(marker) - 1
                return piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
        return piece


class Conversation:
    """One connection, watched for requests to refuse and for the markers of holds.

    Args:
        client: the writer to the client.
    """

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter):
        self._proxy = proxy
        self._client = client
        self._hold: Hold | None = None

    async def hear(self, piece: bytes) -> Fate:
        """Examine a piece from the client; wait while its COMMIT is held."""
        if self._proxy.answers_503 and piece.startswith(REQUESTS):
            self._client.write(REFUSAL)
            await self._client.drain()
            await asyncio.sleep(0.05)  # it reaches the client before the connection is cut
            self._proxy.fault_count += 1
            return "cut"
        for hold in self._proxy.holds:
            if self._hold is None and not hold.in_use and hold.marker in piece:
                hold.in_use = True
                self._hold = hold
        if self._hold is None or COMMIT not in piece:
            return "forward"
        hold, self._hold = self._hold, None
        hold.by, hold.fate = self._proxy, asyncio.get_running_loop().create_future()
        hold.at_commit.set()
        return await hold.fate
