"""A store that answers slowly, with errors, with half a body, or with wrong bytes.

Every function strikes, releases the job, and checks its end.
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
    """The members that call the store in the phase of a case."""
    fleet = case.fleet
    return [fleet.api] if case.phase in ("P1", "P10") else [*fleet.inspectors, *fleet.distillers]


def marker(case: Case) -> bytes:
    """Bytes that occur only in the body to damage: the teacher, or a state of the run, [step, "hash"]."""
    return case.key.encode() if case.phase in ("P1", "P2", "P5") else b', "'


def faults_of(case: Case) -> int:
    return sum(member.store.fault_count for member in askers(case))


def store_flips_bits(case: Case) -> None:
    before = faults_of(case)
    if case.phase == "P10":
        case.arrive()
        case.fleet.api.store.flips.append(marker(case))
        _, body = case.ask("GET", case.student)
        assert faults_of(case) > before
        assert body != student_of(case.teacher)  # the digest in the header differs
        case.expect_end()
        return
    for member in askers(case):
        member.store.flips.append(marker(case))
    case.submit()
    job = case.expect_end(DONE, JobStatus.FAILED, attempt=None)
    assert faults_of(case) > before
    assert job.status is DONE or case.phase == "P1"


def store_breaks_off(case: Case) -> None:
    """The connection ends in the middle of a body, on its way to the store or back."""
    before = faults_of(case)
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
    case.expect_end(attempt=1)
    assert faults_of(case) > before


def store_is_slow(case: Case) -> None:
    before = faults_of(case)

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
    case.expect_end(attempt=1)
    assert faults_of(case) > before


def store_answers_503(case: Case) -> None:
    before = faults_of(case)

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
    case.expect_end(attempt=1)
    assert faults_of(case) > before
