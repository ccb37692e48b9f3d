"""Faults, the phases in which they strike, and the expected outcome: 21 faults x 10 phases, 136 cells.

A cell is named `F{fault}-P{phase}`. It counts as tested only by a test that carries the mark
`cell(name, layer)` and injects that fault while a job is in that phase:

    simulated   the real services, tables and Storage; a scheduler plays workers, clients and broker
    real        real processes, killed, stopped, cut off and restarted while a real job runs

`test_matrix.py` fails for a cell without a test and for a test without a cell.
"""

from dataclasses import dataclass
from typing import Literal

import pytest

Layer = Literal["simulated", "real"]

PHASES = {
    "P1": "upload",
    "P2": "inspect",
    "P3": "create",
    "P4": "queued",
    "P5": "claim",
    "P6": "step",
    "P7": "checkpoint",
    "P8": "metrics",
    "P9": "finalise",
    "P10": "after the end",
}


@dataclass(frozen=True)
class Fault:
    """One way to break the service.

    Args:
        what: the fault in words.
        phases: the phases in which it can strike.
        outcome: the expected outcome, in every phase.
    """

    what: str
    phases: tuple[int, ...]
    outcome: str


EVERY = tuple(range(1, 11))

FAULTS = {
    "F1": Fault("SIGKILL of the child", (2, 5, 6, 7, 8, 9), "tried again, one attempt used"),
    "F2": Fault("SIGKILL of the worker", (2, 4, 5, 6, 7, 8, 9, 10), "another worker goes on"),
    "F3": Fault("SIGTERM of the worker", (2, 4, 5, 6, 7, 8, 9), "another goes on, no attempt used"),
    "F4": Fault("SIGSTOP past the lease, then CONT", (5, 6, 7, 8, 9), "the zombie writes nothing"),
    "F5": Fault("out of memory", (2, 6, 7, 9), "as F1; given up after the third time"),
    "F6": Fault("SIGKILL of the API", (1, 3, 10), "repeated with its key it is one job"),
    "F7": Fault("broker down", (3, 4, 5, 6), "the request is taken; rung for when it is back"),
    "F8": Fault("FLUSHALL", (4, 5, 6), "rung for again"),
    "F9": Fault("five deliveries of one message", (2, 4, 5, 6, 7, 9, 10), "one owner"),
    "F10": Fault("PostgreSQL restarts", EVERY, "503 or a delay; nothing lost or twice"),
    "F11": Fault("connection cut at COMMIT", (1, 2, 3, 5, 7, 8, 9, 10), "exactly one effect"),
    "F12": Fault("store down", (1, 2, 5, 6, 7, 9, 10), "503 or a delay; the job does not fail"),
    "F13": Fault(
        "store slow, 5xx, cut short, bits flipped", (1, 2, 5, 6, 7, 9, 10), "noticed; no wrong byte is used"
    ),
    "F14": Fault("disk full", (1, 2, 5, 6, 7, 9), "what was there stays whole"),
    "F15": Fault("device out of memory", (6, 7, 8, 9), "failed with its code"),
    "F16": Fault("NaN", (2, 6, 7, 8, 9), "failed with its code; no such checkpoint"),
    "F17": Fault("clock wrong by an hour", (1, 3, 4, 5, 6, 7, 8, 9, 10), "no lease misjudged"),
    "F18": Fault("cancel races", (2, 3, 4, 5, 6, 7, 8, 9, 10), "one end, and it never flips"),
    "F19": Fault("black hole to database, store, broker", (2, 4, 5, 6, 7, 8, 9), "no write after it"),
    "F20": Fault("no, two, crashed upkeeps", (2, 3, 4, 5, 6, 9, 10), "no step taken twice"),
    "F21": Fault("deployment in the middle", EVERY, "goes on under the new process"),
}

CELLS = tuple(f"{number}-P{phase}" for number, fault in FAULTS.items() for phase in fault.phases)


def cells(layer: Layer, *names: str, **more: pytest.MarkDecorator) -> list[object]:
    """Parameters of a test that proves these cells; the id of each is the cell's name.

    Args:
        more: a further mark for some of them, by name with `_` for `-`.
    """
    marks = {name: [pytest.mark.cell(name, layer)] for name in names}
    for name, mark in more.items():
        marks[name.replace("_", "-")].append(mark)
    return [pytest.param(name, id=name, marks=marks[name]) for name in names]
