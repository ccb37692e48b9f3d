"""`make chaos`: every cell of the matrix, the simulation, and random strikes on real processes.

    python -m tests.chaos [--kills 25] [--jobs 1000] [--seed 0] [--only EXPRESSION]

Prints the matrix cell by cell and the figures; the last line on stdout is one JSON object. The exit
code is not zero when anything failed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.matrix import CELLS, FAULTS, PHASES

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="random strikes on real processes")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs of the simulation")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the strikes")
    parser.add_argument("--only", default="", help="as pytest's -k")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        code, report = run(arguments, Path(folder) / "report.json")
    figures = figures_of(report)
    print_matrix(report)
    print_recoveries(report)
    print_figures(figures, report["failed"])
    sys.stdout.write(json.dumps(figures) + "\n")
    complete = figures["cells_passed"] == len(CELLS) or arguments.only
    return code or (0 if complete else 1)


def run(arguments: argparse.Namespace, path: Path) -> tuple[int, dict[str, Any]]:
    """Run every test of tests/chaos; the output of pytest goes to stderr."""
    command = [sys.executable, "-m", "pytest", "tests/chaos", "-m", "", "-vv", "-p", "tests.chaos.reporting"]
    command += ["--chaos-report", str(path), "-k", arguments.only or "not test_matrix"]
    environment = {
        **os.environ,
        "NAYER_CHAOS_KILLS": str(arguments.kills),
        "NAYER_CHAOS_JOBS": str(arguments.jobs),
        "NAYER_CHAOS_STRIKES_SEED": str(arguments.seed),
        "OMP_NUM_THREADS": "1",
    }
    code = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr).returncode
    return code, json.loads(path.read_text())


def outcome(report: dict[str, Any], cell: str) -> str:
    """The outcome of a cell: FAILED where any test of it failed, real where one on processes passed."""
    entries = [entry for entry in report["cells"] if entry["cell"] == cell]
    if any(entry["outcome"] == "failed" for entry in entries):
        return "FAILED"
    layers = {entry["layer"] for entry in entries if entry["outcome"] == "passed"}
    return "real" if "real" in layers else "simulated" if layers else "not run"


def print_matrix(report: dict[str, Any]) -> None:
    sys.stdout.write("ok means: by simulation (s), by real processes too (R)\n\n")
    sys.stdout.write(f"{'fault':44}" + "".join(f"{phase:>6}" for phase in PHASES) + "\n")
    short = {"real": "ok R", "simulated": "ok s", "FAILED": "FAIL", "not run": "?"}
    for number, fault in FAULTS.items():
        cells = [f"{number}-{phase}" for phase in PHASES]
        row = [short[outcome(report, cell)] if cell in CELLS else "-" for cell in cells]
        sys.stdout.write(f"{number + ' ' + fault.what:44}" + "".join(f"{text:>6}" for text in row) + "\n")
    sys.stdout.write("\n" + ", ".join(f"{phase} {name}" for phase, name in PHASES.items()) + "\n\n")


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one run; None where nothing measured them."""
    outcomes = [outcome(report, cell) for cell in CELLS]
    series: dict[str, list[Any]] = {}
    for name, value in report["figures"]:
        series.setdefault(name, []).append(value)
    one = {name: values[-1] for name, values in series.items()}
    recovered = [row["seconds"] for row in recoveries_of(report)]
    simulation_failed = any("test_simulation" in test for test in report["failed"])
    statuses = sorted({status for group in series.get("statuses", []) for status in group})
    return {
        "cells": len(CELLS),
        "cells_passed": sum(result in ("real", "simulated") for result in outcomes),
        "real_cells": outcomes.count("real"),
        "simulated_jobs": one.get("simulated_jobs"),
        "simulated_seeds": one.get("simulated_seeds"),
        "lost_simulated": None if simulation_failed or "simulated_jobs" not in one else 0,
        "real_kills": one.get("real_kills"),
        "real_jobs": one.get("real_jobs"),
        "lost_real": one.get("lost_real"),
        "duplicate_completions": one.get("duplicate_completions"),
        "stale_writes": one.get("stale_writes"),
        "bit_exact": one.get("bit_exact"),
        "recoveries": len(recovered),
        "recovery_p50_seconds": percentile(recovered, 50),
        "recovery_p99_seconds": percentile(recovered, 99),
        "slowest_recoveries": recoveries_of(report)[:5],
        "cancels": len(series.get("cancel_seconds", [])),
        "cancel_p99_seconds": percentile(series.get("cancel_seconds", []), 99),
        "api_statuses": statuses,
        "api_statuses_during_outage": [status for status in statuses if status >= 429],
        "failed": len(report["failed"]),
    }


def recoveries_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each measured recovery as its fault, seconds and time to the claim; the slowest first."""
    rows = [row for name, value in report["figures"] if name == "recoveries" for row in value]
    return sorted(rows, key=lambda row: -row["seconds"])


def print_recoveries(report: dict[str, Any]) -> None:
    for row in recoveries_of(report):
        claimed = "" if row["claimed"] is None else f", claimed after {row['claimed']:.2f} s"
        sys.stdout.write(f"recovered in {row['seconds']:6.2f} s{claimed}: {row['what']}\n")


def percentile(values: Iterable[float], share: int) -> float | None:
    """Percentile by linear interpolation; of a few values the 99th is nearly the largest."""
    ordered = sorted(values)
    if len(ordered) < 2:
        return round(ordered[0], 2) if ordered else None
    return round(statistics.quantiles(ordered, n=100, method="inclusive")[share - 1], 2)


def print_figures(figures: dict[str, Any], failed: list[str]) -> None:
    for name, value in figures.items():
        sys.stdout.write(f"{name:30} {value}\n")
    for test in failed:
        sys.stdout.write(f"FAILED {test}\n")


if __name__ == "__main__":
    sys.exit(main())
