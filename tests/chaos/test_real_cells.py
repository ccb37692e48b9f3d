"""Cells of the matrix on real processes: PostgreSQL, Valkey, SeaweedFS, uvicorn, upkeep, Celery workers.

The core is `real/core.py`, which waits at gates, so that a fault strikes in the phase it is meant for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.chaos import invariants
from tests.chaos.matrix import CELLS, cells
from tests.chaos.real.case import Case
from tests.chaos.real.fleet import Fleet, Servers
from tests.chaos.real.scenes import SCENES
from tests.support.seaweedfs import EmbeddedSeaweed
from tests.support.services import fresh_database

# What the whole test suite runs; the rest is left to `make chaos`.
IN_THE_SUITE = ("F1-P6", "F2-P7", "F4-P6", "F11-P3", "F11-P5", "F11-P9", "F12-P7", "F18-P6")
REAL = [cell for cell in CELLS if cell.split("-")[0] in SCENES]
ONLY_IN_MAKE_CHAOS = {cell.replace("-", "_"): pytest.mark.chaos for cell in REAL if cell not in IN_THE_SUITE}


@pytest.fixture(scope="module")
def fleet(
    postgres: EmbeddedPostgres,
    valkey: EmbeddedValkey,
    seaweedfs: EmbeddedSeaweed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    valkey.flush()
    with fresh_database(postgres) as url:
        servers = Servers(postgres, valkey, seaweedfs, url.rsplit("/", 1)[-1])
        fleet = Fleet(servers, tmp_path_factory.mktemp("fleet"))
        try:
            fleet.start()
            yield fleet
            invariants.check_files(fleet.service, fleet.storage)
        finally:
            fleet.stop()


@pytest.fixture
def whole(fleet: Fleet) -> Fleet:
    """The fleet, with the faults of the previous test undone."""
    fleet.start()
    return fleet


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", cells("real", *REAL, **ONLY_IN_MAKE_CHAOS))
def test_real(
    cell: str, whole: Fleet, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    fault, phase = cell.split("-")
    for number, scene in enumerate(SCENES[fault]):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = Case(whole, phase, folder)
        try:
            scene(case)
        finally:
            case.leave()
            if case.job_id:
                whole.start()
                case.ask("POST", f"/jobs/{case.job_id}/cancel")
        if case.recovered is not None:
            record_property("recoveries", [case.recovered.row()])
        if case.cancel_seconds is not None:
            record_property("cancel_seconds", case.cancel_seconds)
        record_property("statuses", sorted(case.statuses))
