"""A store that is there, and is slow, breaks down, answers with half of what it has, or with something else.

Every function strikes, lets the job go on, and waits for the end that must come.
"""

import time

from jobs.states import JobStatus
from tests.chaos.real.case import GATES_BEFORE_FILES, Case
from tests.chaos.real.core import student_of
from tests.chaos.real.fleet import Member

DONE = JobStatus.SUCCEEDED
DELAY_SECONDS = 0.2
ERRORS_SECONDS = 2.0


def askers(case: Case) -> list[Member]:
    """Who asks the store in the phase of a case."""
    fleet = case.fleet
    return [fleet.api] if case.phase in ("P1", "P10") else [*fleet.inspectors, *fleet.distillers]


def marker(case: Case) -> bytes:
    """What only the body in question holds: the teacher, or a state of the run, [step, "hash"]."""
    return case.key.encode() if case.phase in ("P1", "P2", "P5") else b', "'


def lies_of(case: Case) -> int:
    return sum(member.store.lies for member in askers(case))


def store_flips_bits(case: Case) -> None:
    before = lies_of(case)
    if case.phase == "P10":
        case.arrive()
        case.fleet.api.store.flips.append(marker(case))
        _, body = case.ask("GET", case.student)
        assert lies_of(case) > before
        assert body != student_of(case.teacher)  # the digest in the header tells it
        case.ended()
        return
    for member in askers(case):
        member.store.flips.append(marker(case))
    case.submit()
    job = case.ended(DONE, JobStatus.FAILED, attempt=None)
    assert lies_of(case) > before
    assert job.status is DONE or case.phase == "P1"


def store_breaks_off(case: Case) -> None:
    """In the middle of a body, on its way to the store or back, the connection ends."""
    before = lies_of(case)
    if case.phase == "P10":
        case.arrive()
    for member in askers(case):
        member.store.breaks.append(marker(case))
    if case.phase == "P10":
        status, body = case.ask("GET", case.student)
        assert (status, body) in ((200, student_of(case.teacher)), (503, body), (0, None))
        assert case.ask("GET", case.student) == (200, student_of(case.teacher))
    else:
        case.submit()
    case.ended(attempt=1)
    assert lies_of(case) > before


def store_is_slow(case: Case) -> None:
    before = lies_of(case)

    def slow() -> None:
        for member in askers(case):
            member.store.delay = DELAY_SECONDS

    if case.phase == "P1":
        case.send_half_and(slow)
        case.submit()
    else:
        case.arrive(GATES_BEFORE_FILES)
        slow()
        case.leave()
        if case.phase == "P10":
            assert case.ask("GET", case.student) == (200, student_of(case.teacher))
    case.ended(attempt=1)
    assert lies_of(case) > before


def store_answers_503(case: Case) -> None:
    before = lies_of(case)

    def refuse(yes: bool) -> None:
        for member in askers(case):
            member.store.answers_503 = yes

    if case.phase == "P1":
        assert case.send_half_and(lambda: refuse(True)) == 503
        refuse(False)
        case.submit()
    else:
        case.arrive(GATES_BEFORE_FILES)
        refuse(True)
        case.leave()
        if case.phase == "P10":
            assert case.ask("GET", case.student)[0] == 503
        else:
            time.sleep(ERRORS_SECONDS)
        refuse(False)
        if case.phase == "P10":
            assert case.ask("GET", case.student) == (200, student_of(case.teacher))
    case.ended(attempt=1)
    assert lies_of(case) > before
