"""Shared by commands that print tables of runs: options, the loop over missing runs, the printing."""

import argparse
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cifar10, machine
from benchmarks.trials import RESULTS, KeptTrials, Trial

TrialOf = Callable[[str, str, int], Trial]  # of a table, one of its rows and a seed
CellsOf = Callable[[str, Sequence[dict[str, Any]]], list[str]]  # of a row and its finished trials


def parser(description: str | None, metavar: str, tables: Collection[str]) -> argparse.ArgumentParser:
    """Begin the options of a command: which tables, over which seeds, kept where."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("tables", nargs="*", metavar=metavar, choices=[[], *tables], help="all by default")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--results", type=Path, default=RESULTS, help="finished runs, one a line")
    options.add_argument("--kept-only", action="store_true", help="print what is finished, run nothing")
    return options


def fill_and_print(
    args: argparse.Namespace,
    tables: Mapping[str, Sequence[str]],
    trial: TrialOf,
    header: str,
    cells: CellsOf,
) -> None:
    """Run what is missing, a seed at a time, and print the tables.

    Args:
        args: parsed by `parser`.
        tables: the rows of each table to print, by its name.
        trial: the run behind one row and one seed.
        header: the first line of each table, in Markdown.
        cells: the cells behind a row's name, from the outcomes of its trials.
    """
    if any(trial(table, row, 0).data == "cifar10" for table, rows in tables.items() for row in rows):
        cifar10.require_data()
    print(f"{machine.describe()}, seeds {args.seeds}")
    trials = KeptTrials(args.results)
    for table, rows in () if args.kept_only else tables.items():
        for seed in args.seeds:
            for row in rows:
                outcome = trials.outcome(trial(table, row, seed))
                print(f"{table}  {row}  seed {seed}  accuracy {outcome['accuracy']:.4f}", flush=True)
    for table, rows in tables.items():
        print(f"\n## {table}\n\n{header}\n|{'---|' * (header.count('|') - 1)}")
        for row in rows:
            outcomes = [trials.find(trial(table, row, seed)) for seed in args.seeds]
            finished = [outcome for outcome in outcomes if outcome is not None]
            print(f"| {row} | {' | '.join(cells(row, finished))} |")


def rows_parser(description: str | None) -> argparse.ArgumentParser:
    """Take the options of a command that has one table: which rows, over which seeds."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("rows", nargs="*", metavar="NAME", help="rows to run; all by default")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return options


def print_accuracies(
    rows: Sequence[str], seeds: Sequence[int], accuracy: Callable[[str, int], float]
) -> None:
    """Print each row as soon as its seeds are there: mean, spread and every accuracy."""
    print(machine.describe())
    for row in rows:
        accuracies = [accuracy(row, seed) for seed in seeds]
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        print(f"{row:42}  {statistics.mean(accuracies):.4f} +- {deviation:.4f}  {accuracies}", flush=True)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over the seeds; `-` where there is nothing."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def convergence(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Steps to convergence, over the seeds where any round got there."""
    return spread([steps for outcome in outcomes if (steps := outcome["convergence_steps"]) is not None], 1)
