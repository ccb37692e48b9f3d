"""Every cell has a test, and every test of a cell names one that exists."""

import json
import subprocess
import sys
from pathlib import Path

from tests.chaos.matrix import CELLS, EVERY, FAULTS, PHASES
from tests.chaos.simulation.scenes import SCENES

ROOT = Path(__file__).parents[2]


def test_the_matrix_has_136_cells() -> None:
    assert len(CELLS) == len(set(CELLS)) == 136
    assert set(FAULTS) == set(SCENES) == {f"F{number}" for number in range(1, 22)}
    assert set(PHASES) == {f"P{number}" for number in EVERY}


def test_every_cell_has_a_test_and_every_test_a_cell(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-m", "", "-p", "tests.chaos.reporting"]
    done = subprocess.run(
        [*command, "--chaos-report", str(report), "tests/chaos", "tests/worker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    entries = json.loads(report.read_text())["cells"]
    names = {entry["cell"] for entry in entries}
    assert set(CELLS) - names == set(), "cells without a test"
    assert names - set(CELLS) == set(), "tests of cells that there are not"
    assert {entry["layer"] for entry in entries} <= {"simulated", "real"}
    for entry in entries:
        if "tests/chaos" in entry["test"]:
            assert f"[{entry['cell']}" in entry["test"], "the id of a test is its cell"
