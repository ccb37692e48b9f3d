"""The engine, and the one way to a transaction."""

from collections.abc import Iterator
from contextlib import contextmanager

import pydantic_core
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from jobs.errors import ServiceUnavailable

__all__ = ["Database", "Session"]

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 30
LOCK_SECONDS = 10
# A worker that is suspended in the middle of a transaction keeps its job's row locked, and the reaper
# passes over locked rows: no other worker gets the job before this.
IDLE_SECONDS = 10

# A server that vanished without a word (a cut cable, a black hole) is noticed after this.
SILENCE_SECONDS = 15


class Database:
    """A pool of connections to PostgreSQL.

    Args:
        url: `postgresql://user:password@host:port/name`.
        pool_size: connections kept open; as many again may be opened for a while.
    """

    def __init__(self, url: str, pool_size: int = 10):
        self._engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=CONNECT_SECONDS,
            # After a restart of the server the pool is full of dead connections.
            pool_pre_ping=True,
            json_serializer=_to_json,
            # The text of a failed statement is logged; its values are clients' and may be secret.
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "keepalives_idle": SILENCE_SECONDS // 3,
                "keepalives_interval": SILENCE_SECONDS // 3,
                "keepalives_count": 2,
                "tcp_user_timeout": SILENCE_SECONDS * 1000,
                "options": (
                    f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s"
                    f" -c idle_in_transaction_session_timeout={IDLE_SECONDS}s -c timezone=UTC"
                ),
            },
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a transaction: committed at the end of the block, rolled back when it raises.

        Raises:
            ServiceUnavailable: the server cannot be reached, went away, or took too long.
                When it went away during the commit, the effect may or may not be there.
        """
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise ServiceUnavailable("database", _kind(error)) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise ServiceUnavailable("database", _kind(error)) from error
            raise

    def close(self) -> None:
        """Close every connection of the pool."""
        self._engine.dispose()


def _kind(error: Exception) -> str:
    """Name a failure without the driver's text, which holds addresses and user names."""
    return type(getattr(error, "orig", None) or error).__name__


def _to_json(value: object) -> str:
    # JSON has no NaN, and a diverged run must still be able to report it.
    return pydantic_core.to_json(value, inf_nan_mode="null").decode()
