"""No cell without a test, no test without a cell."""

import json
import subprocess
import sys
from pathlib import Path

from tests.chaos.matrix import CELLS, EVERY, FAULTS, PHASES
from tests.chaos.simulation.scenes import SCENES

ROOT = Path(__file__).parents[2]


def test_the_matrix_has_the_cells_that_mean_something() -> None:
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
    found = json.loads(report.read_text())["cells"]
    names = {told["cell"] for told in found}
    assert set(CELLS) - names == set(), "cells without a test"
    assert names - set(CELLS) == set(), "tests of cells that there are not"
    assert {told["layer"] for told in found} <= {"simulated", "real"}
    for told in found:
        if "tests/chaos" in told["test"]:
            assert f"[{told['cell']}" in told["test"], "the id of a test is its cell"
