"""The progress bar on stderr, for a person at a terminal."""

import contextlib
from collections.abc import Iterator
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nayer_core.contract.events import Event, MetricsEvent, PhaseEvent, ProgressEvent, WarningEvent


class ProgressBar:
    """Shows phases, progress and the latest numbers; nothing where stderr is not a terminal."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._row = None if progress is None else progress.add_task("", total=1.0, start=True, numbers="")

    @classmethod
    @contextlib.contextmanager
    def on_terminal(cls, stderr: TextIO) -> Iterator[Self]:
        """Yield a bar that is shown during the block."""
        if not stderr.isatty():
            yield cls(None)
            return
        columns = (
            TextColumn("{task.description:10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        with Progress(*columns, console=Console(file=stderr), redirect_stdout=False) as progress:
            yield cls(progress)

    def show(self, event: Event) -> None:
        """Update the bar."""
        if self._progress is None or self._row is None:
            return
        if isinstance(event, PhaseEvent):
            self._progress.update(self._row, description=event.phase)
        elif isinstance(event, ProgressEvent):
            self._progress.update(self._row, completed=event.fraction, description=event.phase)
        elif isinstance(event, MetricsEvent):
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in event.values.items())
            self._progress.update(self._row, numbers=numbers)
        elif isinstance(event, WarningEvent):
            self._progress.console.print(event.message)
