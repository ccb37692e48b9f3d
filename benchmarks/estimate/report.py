"""Tables of how well the map does on teachers that it has not seen, beside numbers without a map."""

from collections.abc import Sequence

import numpy as np

from benchmarks.estimate.fit import (
    SIGNALS,
    SIGNALS_AND_ACCURACY,
    TODAY,
    Checked,
    Row,
    Signals,
    Values,
    leave_teachers_out,
    rank_correlations,
    teachers_of,
)


def print_report(rows: Sequence[Row], failed: Sequence[Row]) -> None:
    """Print both tables in Markdown.

    Args:
        rows: those that the map is for.
        failed: those of runs whose images the teacher does not see as what they were made for.
    """
    names = teachers_of(rows)
    print(f"{len(rows)} students of {len(names)} teachers; {len(failed)} more of failed synthesis.\n")
    print("| estimate | mean error, points | intervals that hold the truth | mean width | rank correlation |")
    print("|---|---|---|---|---|")
    _print_raw("agreement on synthetic images, as it is", rows, TODAY)
    _print_mapped("the same, mapped", rows, ((TODAY, "logit"),))
    _print_mapped("the map", rows, SIGNALS)
    _print_mapped("a map that uses the teacher's accuracy too", rows, SIGNALS_AND_ACCURACY)
    print("\n| teacher | students | agreement | estimates | mean error | held | rank correlation |")
    print("|---|---|---|---|---|---|---|")
    checked = leave_teachers_out(rows, SIGNALS)
    ranks = rank_correlations(checked.rows, checked.predicted)
    for name in names:
        own = checked.of(name)
        print(
            f"| {name} | {len(own.rows)} | {_range(own.real)} | {_range(own.predicted)} | "
            f"{100 * own.error:.1f} | {own.coverage:.0%} | {ranks[name]:.2f} |"
        )


def print_candidates(rows: Sequence[Row]) -> None:
    """Print how well each number alone would do, mapped, best first."""
    names = sorted({name for name in rows[0] if "." in name and all(name in row for row in rows)})
    results = []
    for name in names:
        is_share = all(0 <= row[name] <= 1 for row in rows) and not name.endswith("distance")
        checked = leave_teachers_out(rows, ((name, "logit" if is_share else "log"),))
        ranks = list(rank_correlations(rows, np.array([row[name] for row in rows])).values())
        results.append((checked.error, name, float(np.mean(ranks))))
    print("\n| signal | mean error, points | rank correlation |\n|---|---|---|")
    for error, name, rank in sorted(results):
        print(f"| {name} | {100 * error:.1f} | {rank:.2f} |")


def _print_raw(title: str, rows: Sequence[Row], signal: str) -> None:
    values = np.array([row[signal] for row in rows])
    checked = Checked(rows, values, values, values)
    print(f"| {title} | {100 * checked.error:.1f} | - | - | {_ranks(rows, values)} |")


def _print_mapped(title: str, rows: Sequence[Row], signals: Signals) -> None:
    checked = leave_teachers_out(rows, signals)
    width = 100 * float(np.mean(checked.high - checked.low))
    print(
        f"| {title} | {100 * checked.error:.1f} | {checked.coverage:.0%} | {width:.0f} | "
        f"{_ranks(checked.rows, checked.predicted)} |"
    )


def _ranks(rows: Sequence[Row], values: Values) -> str:
    """Mean and least over the teachers."""
    ranks = list(rank_correlations(rows, values).values())
    return f"{np.mean(ranks):.2f}, least {min(ranks):.2f}"


def _range(values: Values) -> str:
    return f"{100 * values.min():.0f} to {100 * values.max():.0f}"
