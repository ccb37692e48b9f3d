"""The output of a command: its result on stdout, everything for people on stderr."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli import wording
from nayer import ClientError

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130


class Output:
    """The two streams of a command.

    Args:
        as_json: print the result as one JSON object on one line of stdout.
    """

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.messages = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print a message with rich's markup; lines are not wrapped, so that they can be copied."""
        self.messages.print(text, highlight=False, soft_wrap=True)

    def result(self, document: Any, text: str) -> None:
        """Print the result: `document` with --json, else `text`."""
        sys.stdout.write((json.dumps(document) if self.as_json else text) + "\n")
        sys.stdout.flush()

    def table(self, document: Any, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        """Print the result: `document` with --json, else a table."""
        if self.as_json:
            self.result(document, "")
            return
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        Console(soft_wrap=not sys.stdout.isatty()).print(table, highlight=False)

    def problem(self, code: str, message: str, hint: str) -> None:
        """Print what is wrong and what to change."""
        self.say(f"[red]{escape(code)}[/]: {escape(message)}")
        if hint:
            self.say(f"[dim]{escape(hint)}[/]")


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Output]:
    """Give a command its output; print an error of the client and exit with `EXIT_REFUSED`."""
    output = Output(as_json)
    try:
        yield output
    except ClientError as error:
        message, hint = wording.explain(error)
        output.problem(error.code, message, hint)
        if as_json:
            output.result({"error": {"code": error.code, "message": message, "hint": hint}}, "")
        raise typer.Exit(EXIT_REFUSED) from error
