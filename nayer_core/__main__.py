"""The program: `python -m nayer_core inspect | embed | fetch-encoders | distill | evaluate | export`.

Parses and dispatches only. stdout has JSON lines, one event of `contract.events` each; messages for people go
to stderr. Exit codes: 0 done, 2 the request cannot work (the last line has the reason), 3 stopped on request
with the state saved, 1 a bug (traceback on stderr).

A command is a function `run(args, emit) -> dict | int` in its own module, imported only when it is called. It
returns the result of a finished command, or the exit code if it has emitted its last line itself.
"""

import argparse
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, get_args

from nayer_core.commands.event_stream import EventStream
from nayer_core.commands.progress_bar import ProgressBar
from nayer_core.contract.disk import disk_trouble
from nayer_core.contract.errors import ErrorCode, NayerError, SpecError
from nayer_core.contract.events import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_REFUSED,
    Emit,
    Event,
    FailedEvent,
    FinishedEvent,
)
from nayer_core.contract.spec import ExportFormat
from nayer_core.hardware.launch import MEETING_FILE, die_with_launcher, run_in_processes

Run = Callable[[argparse.Namespace, Emit], dict[str, Any] | int]

MEMORY_HELP = "refuse a run that is estimated to need more"

COMMAND_MODULES = {
    "inspect": "nayer_core.commands.inspection",
    "embed": "nayer_core.label_embeddings.text_encoders",
    "fetch-encoders": "nayer_core.label_embeddings.encoder_weights",
    "distill": "nayer_core.commands.distill",
    "evaluate": "nayer_core.commands.evaluate",
    "export": "nayer_core.commands.export",
}


def main(argv: Sequence[str], stdout: TextIO) -> int:
    """Run one command and return the exit code of the program's contract.

    Args:
        argv: the words after `python -m nayer_core`.
        stdout: where the JSON lines go.
    """
    stream = EventStream(stdout)
    try:
        return _perform(argv, stdout, stream.emit)
    except NayerError as error:
        stream.emit(
            FailedEvent(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)
        )
        print(f"{error.message} {error.hint}", file=sys.stderr)  # noqa: T201 - for people
        return EXIT_REFUSED
    except Exception:  # a bug, whatever it is: exit 1 with a traceback
        stream.flush()
        traceback.print_exc()
        return EXIT_BUG


def _perform(argv: Sequence[str], stdout: TextIO, write_event: Emit) -> int:
    args = _parse(argv)
    if args.command == "distill" and args.processes > 1 and os.environ.get("WORLD_SIZE", "1") == "1":
        return run_in_processes(argv, args.processes, stdout, write_event)
    terminal = sys.stderr if _is_first() else io.StringIO()
    with ProgressBar.on_terminal(terminal) as progress_bar:

        def emit(event: Event) -> None:
            write_event(event)
            progress_bar.show(event)

        run: Run = importlib.import_module(COMMAND_MODULES[args.command]).run
        outcome = _run(run, args, emit)
        if isinstance(outcome, int):
            return outcome
        emit(FinishedEvent(command=args.command, result=outcome))
        return EXIT_DONE


def _run(run: Run, args: argparse.Namespace, emit: Emit) -> dict[str, Any] | int:
    try:
        return run(args, emit)
    except Exception as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        message = f"A file could not be written: the disk of this machine {trouble}."
        hint = "Make room, or run it on another machine; checkpoints that were saved are whole."
        raise NayerError(ErrorCode.DISK_FAILED, message, hint, retryable=True) from error


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error as the `failed` event that callers read."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(
            ErrorCode.INVALID_COMMAND,
            f"The command line cannot be used: {message}.",
            f"Read `{self.prog} --help`.",
        )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "distill" and (args.teacher is None) != (args.spec is None):
        parser.error("--teacher and --spec go together, instead of --in")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m nayer_core", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    inspect = commands.add_parser("inspect", help="untrusted files -> canonical files and a report")
    inspect.add_argument("--teacher", type=_file, required=True, help="state dict or safetensors")
    inspect.add_argument("--spec", type=_file, required=True, help="the document of POST /jobs")
    inspect.add_argument("--evaluation", type=_file, help=".npz with images and labels")
    inspect.add_argument("--embeddings", type=_file, help="safetensors, one row a class")
    inspect.add_argument("--out", type=Path, required=True, help="folder to fill")
    inspect.add_argument("--memory-bytes", type=_count, help=MEMORY_HELP)

    embed = commands.add_parser("embed", help="class names -> label-text embeddings")
    embed.add_argument("--spec", type=_file, required=True)
    embed.add_argument("--out", type=Path, required=True)

    commands.add_parser("fetch-encoders", help="text encoders' weights -> this machine's cache")

    _add_distill(commands.add_parser("distill", help="teacher and embeddings -> student"))

    evaluate = commands.add_parser("evaluate", help="accuracy and agreement over images")
    evaluate.add_argument("--network", type=_file, required=True)
    evaluate.add_argument("--architecture", required=True)
    evaluate.add_argument("--images", type=_file, required=True, help=".npz with images and labels")
    evaluate.add_argument("--spec", type=_file, required=True)
    evaluate.add_argument("--teacher", type=_file, help="measure agreement with this network too")
    evaluate.add_argument("--device", choices=("cpu", "cuda"))

    export = commands.add_parser("export", help="student -> a file other programs run")
    export.add_argument("--network", type=_file, required=True)
    export.add_argument("--architecture", help="default: as the file says, or recognised")
    export.add_argument("--spec", type=_file, help="for a file that does not say what it holds")
    export.add_argument("--format", choices=get_args(ExportFormat), required=True)
    export.add_argument("--out", type=Path, required=True)
    return parser


def _add_distill(distill: argparse.ArgumentParser) -> None:
    source = distill.add_mutually_exclusive_group(required=True)
    source.add_argument("--in", type=_folder, dest="input", help="folder filled by inspect and embed")
    source.add_argument("--teacher", type=_file, help="by hand: inspect and embed first; needs --spec")
    distill.add_argument("--spec", type=_file, help="the document of POST /jobs, with --teacher")
    distill.add_argument("--evaluation", type=_file, help=".npz with images and labels, with --teacher")
    distill.add_argument("--embeddings", type=_file, help="safetensors, one row a class, with --teacher")
    distill.add_argument("--memory-bytes", type=_count, help=f"{MEMORY_HELP}, with --teacher")
    distill.add_argument("--out", type=Path, required=True)
    distill.add_argument("--resume", type=_folder, help="checkpoint folder of an earlier run")
    distill.add_argument("--bank", type=_file, help="bank of an earlier run: begin after its warm-up")
    distill.add_argument("--name", help="name of the run in the bank that it writes (reuse_bank)")
    distill.add_argument(
        "--checkpoint-seconds", type=_seconds, default=60.0, help="time between two checkpoints (default 60)"
    )
    distill.add_argument(
        "--processes",
        type=_count,
        default=1,
        help="share the run among N: a GPU each, or N parts of the cores",
    )
    distill.add_argument("--device", choices=("cpu", "cuda"))
    distill.add_argument("--seed", type=int, help="instead of the seed in the spec")


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}")
    return path


def _folder(name: str) -> Path:
    path = Path(name)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {name}")
    return path


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return count


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _claim_stdout() -> TextIO:
    """Reserve stdout for events: anything else that is printed from here on goes to stderr.

    Of several processes that torchrun has started for one run, only the first writes events. Under our own
    launcher, which reads from each process, all write them.
    """
    writes_events = _is_first() or MEETING_FILE in os.environ
    events = os.fdopen(
        os.dup(1) if writes_events else os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"
    )
    os.dup2(2, 1)
    return events


if __name__ == "__main__":
    die_with_launcher()
    sys.exit(main(sys.argv[1:], _claim_stdout()))
