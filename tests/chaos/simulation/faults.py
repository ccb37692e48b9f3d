"""The real database and store, with faults that a test injects."""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from jobs.errors import ServiceUnavailable
from jobs.files.store import Storage
from jobs.rows.database import Database, Session
from jobs.values.files import StoredFile

# refused: no connection. cut: the connection breaks before COMMIT is sent. unanswered: it breaks after
# COMMIT was done.
DatabaseFault = Literal["refused", "cut", "unanswered"]
# away: no answer. unanswered: stored, and no answer. full: half was written, then no space.
# truncated, flipped: bytes come back otherwise than they went.
StoreFault = Literal["away", "unanswered", "full", "truncated", "flipped"]

DATABASE_FAULTS: tuple[DatabaseFault, ...] = ("refused", "cut", "unanswered")
STORE_FAULTS: tuple[StoreFault, ...] = ("away", "unanswered", "truncated")


class Weather:
    """Decides which of the next calls fail: those that a test ordered, then some by chance.

    Args:
        chance: the source of all chance; nothing happens by chance without one.
    """

    def __init__(self, chance: random.Random | None = None):
        self.database: deque[DatabaseFault | None] = deque()
        self.store: deque[StoreFault | None] = deque()
        self.rate = 0.0
        self._chance = chance

    def of_database(self) -> DatabaseFault | None:
        return self._next(self.database, DATABASE_FAULTS)

    def of_store(self) -> StoreFault | None:
        return self._next(self.store, STORE_FAULTS)

    def clear_up(self) -> None:
        self.database.clear()
        self.store.clear()
        self.rate = 0.0

    def _next(self, ordered: deque[Any], by_chance: tuple[Any, ...]) -> Any:
        if ordered:
            return ordered.popleft()
        if self.rate and self._chance and self._chance.random() < self.rate:
            return self._chance.choice(by_chance)
        return None


class FaultyDatabase(Database):
    """The real database, whose transactions fail as the weather decides."""

    def __init__(self, url: str, weather: Weather):
        super().__init__(url, pool_size=4)
        self.weather = weather

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        fault = self.weather.of_database()
        if fault == "refused":
            raise ServiceUnavailable("database", "refused by the simulation")
        with super().transaction() as session:
            yield session
            if fault == "cut":
                session.flush()
                # The socket is gone under the driver's feet: COMMIT fails as it does in life.
                session.connection().connection.driver_connection.pgconn.finish()
        if fault == "unanswered":
            raise ServiceUnavailable("database", "no answer in the simulation")


class FaultyStorage(Storage):
    """The real store over a folder, which fails and damages as the weather decides."""

    weather: Weather

    @classmethod
    def over(cls, folder: Path, weather: Weather) -> "FaultyStorage":
        storage = cls.open(f"file://{folder}")
        storage.weather = weather
        return storage

    def put_stream(self, chunks: Iterable[bytes] | BinaryIO, key: str) -> StoredFile:
        fault = self.weather.of_store()
        if fault == "away":
            raise ServiceUnavailable("storage", "away in the simulation")
        if fault == "full":
            assert self._folder is not None
            half = self._folder / f"{key}#1"  # the file that obstore leaves of an interrupted writer
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(b"half of a fi")
            raise ServiceUnavailable("storage", "no space left in the simulation")
        stored = super().put_stream(chunks, key)
        if fault == "flipped":
            self.damage(key)
        if fault == "unanswered":
            raise ServiceUnavailable("storage", "no answer in the simulation")
        return stored

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        fault = self.weather.of_store()
        if fault == "away":
            raise ServiceUnavailable("storage", "away in the simulation")
        body = b"".join(super().open_range(key, start, end))
        if fault == "truncated":
            body = body[: len(body) // 2]
        if fault == "flipped":
            body = _flipped(body)
        return iter([body])

    def damage(self, key: str) -> None:
        """Flip one bit of the file under a key."""
        assert self._folder is not None
        path = self._folder / key
        path.write_bytes(_flipped(path.read_bytes()))


def _flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


class Bell:
    """A broker in memory that loses, repeats and forgets messages."""

    def __init__(self, chance: random.Random | None = None):
        self.messages: dict[str, list[str]] = {"inspect": [], "distill": []}
        self.down = False
        self.loses = 0.0
        self.repeats = 0.0
        self._chance = chance or random.Random(0)

    def ring(self, queue: str, job_id: str) -> bool:
        if self.down:
            return False
        if self._chance.random() >= self.loses:
            copies = 5 if self._chance.random() < self.repeats else 1
            self.messages[queue] += [job_id] * copies
        return True

    def pending(self, queue: str) -> int | None:
        return None if self.down else len(self.messages[queue])

    def take(self, queue: str) -> bool:
        """Take one message, as a worker does."""
        if self.down or not self.messages[queue]:
            return False
        self.messages[queue].pop(0)
        return True

    def flush(self) -> None:
        for waiting in self.messages.values():
            waiting.clear()

    def close(self) -> None:
        return
