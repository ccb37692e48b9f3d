"""The display of a job: a progress bar in a terminal, plain lines elsewhere. All on stderr."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from cli import wording
from nayer import RemoteEvent
from nayer.uploads import OnBytes

PLAIN_SECONDS = 5.0  # between two plain lines of progress
SHOWN_METRICS = ("student_accuracy", "student_loss", "generator_loss")


class JobDisplay:
    """Shows the events of one job as they come.

    Args:
        console: a terminal gets a bar, anything else gets lines.
    """

    def __init__(self, console: Console):
        self._console = console
        self._metrics: dict[str, float] = {}
        self._printed_at = -PLAIN_SECONDS
        self._progress = Progress(
            TextColumn("[bold]{task.fields[phase]:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[state]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task("", total=1.0, phase="", state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def event(self, event: RemoteEvent) -> None:
        """Show one event; types without interest to a person are skipped."""
        data = event.data
        if event.type == "status":
            self._say(f"{data['status']}")
        elif event.type == "phase":
            self._phase(str(data["phase"]))
        elif event.type == "metrics":
            self._metrics |= data["values"]
        elif event.type == "progress":
            self._step(data)
        elif event.type == "warning":
            message = escape(wording.in_options(data["message"]))
            self._say(f"[yellow]warning[/] {escape(data['code'])}: {message}")

    def trouble(self, sentence: str) -> None:
        """Report that the connection was lost."""
        self._say(f"[yellow]{escape(wording.in_options(sentence))}[/]")

    def _phase(self, phase: str) -> None:
        self._progress.update(self._task, phase=phase)
        self._printed_at = -PLAIN_SECONDS
        if not self._console.is_terminal:
            self._say(phase)

    def _step(self, data: dict[str, Any]) -> None:
        state = "  ".join(_state(data, self._metrics))
        self._progress.update(self._task, phase=data["phase"], completed=data["fraction"], state=state)
        if not self._console.is_terminal and time.monotonic() - self._printed_at >= PLAIN_SECONDS:
            self._printed_at = time.monotonic()
            self._say(f"{data['phase']} {data['fraction']:.0%}  {state}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def transfer(console: Console, what: str) -> Iterator[OnBytes]:
    """Show the progress of a transfer; gives the callback for `Client`."""
    with Progress(
        TextColumn(what),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _state(data: dict[str, Any], metrics: dict[str, float]) -> Iterator[str]:
    yield f"epoch {data['epoch']}/{data['epochs']}"
    yield from (f"{name} {metrics[name]:.3g}" for name in SHOWN_METRICS if name in metrics)
    if data.get("eta_seconds") is not None:
        yield f"{_duration(data['eta_seconds'])} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
