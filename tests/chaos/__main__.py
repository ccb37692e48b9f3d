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
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        code, report = run(asked, Path(folder) / "report.json")
    figures = figures_of(report)
    print_matrix(report)
    print_recoveries(report)
    print_figures(figures, report["failed"])
    sys.stdout.write(json.dumps(figures) + "\n")
    complete = figures["cells_passed"] == len(CELLS) or asked.only
    return code or (0 if complete else 1)


def run(asked: argparse.Namespace, path: Path) -> tuple[int, dict[str, Any]]:
    """Run every test of tests/chaos, and those elsewhere that stand for a cell; its output goes to stderr."""
    command = [sys.executable, "-m", "pytest", "tests/chaos", "-m", "", "-vv", "-p", "tests.chaos.reporting"]
    command += ["--chaos-report", str(path), "-k", asked.only or "not test_matrix"]
    environment = {
        **os.environ,
        "NAYER_CHAOS_KILLS": str(asked.kills),
        "NAYER_CHAOS_JOBS": str(asked.jobs),
        "NAYER_CHAOS_STRIKES_SEED": str(asked.seed),
        "OMP_NUM_THREADS": "1",
    }
    code = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr).returncode
    return code, json.loads(path.read_text())


def outcome(report: dict[str, Any], cell: str) -> str:
    """How a cell came out: FAILED where any test of it did, real where one on processes passed."""
    found = [told for told in report["cells"] if told["cell"] == cell]
    if any(told["outcome"] == "failed" for told in found):
        return "FAILED"
    passed = {told["layer"] for told in found if told["outcome"] == "passed"}
    return "real" if "real" in passed else "simulated" if passed else "not run"


def print_matrix(report: dict[str, Any]) -> None:
    sys.stdout.write("ok means: by simulation (s), by real processes too (R)\n\n")
    sys.stdout.write(f"{'fault':44}" + "".join(f"{phase:>6}" for phase in PHASES) + "\n")
    short = {"real": "ok R", "simulated": "ok s", "FAILED": "FAIL", "not run": "?"}
    for fault, told in FAULTS.items():
        cells = [f"{fault}-{phase}" for phase in PHASES]
        row = [short[outcome(report, cell)] if cell in CELLS else "-" for cell in cells]
        sys.stdout.write(f"{fault + ' ' + told.what:44}" + "".join(f"{text:>6}" for text in row) + "\n")
    sys.stdout.write("\n" + ", ".join(f"{phase} {name}" for phase, name in PHASES.items()) + "\n\n")


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one run; None where nothing measured them."""
    outcomes = [outcome(report, cell) for cell in CELLS]
    told: dict[str, list[Any]] = {}
    for name, value in report["figures"]:
        told.setdefault(name, []).append(value)
    one = {name: values[-1] for name, values in told.items()}
    recovered = [row["seconds"] for row in recoveries_of(report)]
    simulation_failed = any("test_simulation" in test for test in report["failed"])
    statuses = sorted({status for found in told.get("statuses", []) for status in found})
    return {
        "cells": len(CELLS),
        "cells_passed": sum(found in ("real", "simulated") for found in outcomes),
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
        "cancels": len(told.get("cancel_seconds", [])),
        "cancel_p99_seconds": percentile(told.get("cancel_seconds", []), 99),
        "api_statuses": statuses,
        "api_statuses_during_outage": [status for status in statuses if status >= 429],
        "failed": len(report["failed"]),
    }


def recoveries_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of each: what, seconds, claimed; the slowest first."""
    rows = [row for name, value in report["figures"] if name == "recoveries" for row in value]
    return sorted(rows, key=lambda row: -row["seconds"])


def print_recoveries(report: dict[str, Any]) -> None:
    for row in recoveries_of(report):
        claimed = "" if row["claimed"] is None else f", claimed after {row['claimed']:.2f} s"
        sys.stdout.write(f"recovered in {row['seconds']:6.2f} s{claimed}: {row['what']}\n")


def percentile(values: Iterable[float], share: int) -> float | None:
    """By linear interpolation; of a few values the 99th is nearly the greatest."""
    known = sorted(values)
    if len(known) < 2:
        return round(known[0], 2) if known else None
    return round(statistics.quantiles(known, n=100, method="inclusive")[share - 1], 2)


def print_figures(figures: dict[str, Any], failed: list[str]) -> None:
    for name, value in figures.items():
        sys.stdout.write(f"{name:30} {value}\n")
    for test in failed:
        sys.stdout.write(f"FAILED {test}\n")


if __name__ == "__main__":
    sys.exit(main())
