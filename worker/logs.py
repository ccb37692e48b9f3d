"""The log: one JSON object on each line of stderr, with the name of its job."""

import contextlib
import contextvars
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

_current_job: contextvars.ContextVar[str | None] = contextvars.ContextVar("job", default=None)
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Celery puts whole messages into `extra`; the formatted line is enough.
_OWN = "worker"


@contextlib.contextmanager
def job_in_log(job_id: str) -> Iterator[None]:
    """Name the job in every line of this thread and of threads from `thread_of_job`."""
    token = _current_job.set(job_id)
    try:
        yield
    finally:
        _current_job.reset(token)


def thread_of_job(target: Callable[..., None], *arguments: object) -> threading.Thread:
    """Make a thread, not yet started, whose lines name the same job as the lines of this thread.

    It is a daemon thread: it ends with the process at the latest.
    """
    context = contextvars.copy_context()
    return threading.Thread(target=context.run, args=(target, *arguments), daemon=True)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (job_id := _current_job.get()) is not None:
            entry["job"] = job_id
        if record.name.startswith(_OWN):
            entry |= {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: int | str = logging.INFO) -> None:
    """Send the root logger's records to stderr as JSON lines, in place of other handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
