"""What a command says: its result on stdout, everything for people on stderr."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.errors import ClientError

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130


class Output:
    """Where a command writes.

    Args:
        as_json: print the result as one JSON object on one line of stdout.
    """

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.messages = Console(stderr=True)

    def say(self, text: str) -> None:
        """Tell a person something, with rich's markup; lines stay whole, to be copied."""
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

    def problem(self, code: str, message: str, hint: str | None) -> None:
        """Say what went wrong and what to change."""
        self.say(f"[red]{escape(code)}[/]: {escape(message)}")
        if hint:
            self.say(f"[dim]{escape(hint)}[/]")


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Output]:
    """Give a command its output, and end it in words where the request cannot work."""
    output = Output(as_json)
    try:
        yield output
    except ClientError as error:
        output.problem(error.code, error.message, error.hint)
        if as_json:
            told = {"code": error.code, "message": error.message, "hint": error.hint}
            output.result({"error": told}, "")
        raise typer.Exit(EXIT_REFUSED) from error
