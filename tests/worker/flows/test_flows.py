"""The table of flows."""

from jobs.kinds import KINDS
from worker.flows import FLOWS


def test_every_stage_of_every_kind_has_a_flow() -> None:
    assert set(FLOWS) == {(kind.name, queue) for kind in KINDS.values() for queue in kind.stages}
