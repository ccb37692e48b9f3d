"""Every cell of the matrix in the simulation: the fault strikes at the calls of its phase."""

from pathlib import Path

import pytest

from tests.chaos.conftest import Databases
from tests.chaos.matrix import CELLS, cells
from tests.chaos.simulation.many import simulated_settings
from tests.chaos.simulation.scenes import SCENES
from tests.chaos.simulation.stage import Stage

CALLS = 2  # of a phase, each in a world of its own


@pytest.mark.parametrize("cell", cells("simulated", *CELLS))
def test_simulated(cell: str, databases: Databases, folder: Path) -> None:
    fault, phase = cell.split("-")
    strikes = 0
    for nth in range(CALLS):
        place = folder / str(nth)
        place.mkdir()
        stage = Stage(databases, simulated_settings(), place, phase, nth)
        if stage.is_at_phase:
            SCENES[fault](stage)
            strikes += 1
    assert strikes
