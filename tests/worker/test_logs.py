import json
import logging
import sys

from worker.logs import JsonLines, job_in_log


def line(**extra: object) -> dict[str, object]:
    record = logging.LogRecord("worker.process.child", logging.WARNING, "f", 1, "it %s", ("ended",), None)
    record.__dict__.update(extra)
    return json.loads(JsonLines().format(record))  # type: ignore[no-any-return]


def test_a_line_names_the_job_it_is_about() -> None:
    assert "job" not in line()
    with job_in_log("job_1"):
        entry = line(exit_code=-9)
    assert (entry["job"], entry["level"], entry["message"]) == ("job_1", "warning", "it ended")
    assert entry["exit_code"] == -9


def test_an_exception_stays_on_one_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("worker", logging.ERROR, "f", 1, "oh", (), sys.exc_info())
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "ValueError: first" in json.loads(text)["exception"]
