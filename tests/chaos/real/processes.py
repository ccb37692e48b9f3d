"""Processes that are killed, stopped or drained while a job is held in a phase.

Every function strikes, releases the job, and checks its end.
"""

import contextlib
import signal
import threading
import time

from jobs.states import JobStatus
from tests.chaos.real.case import Case
from tests.chaos.real.fleet import wait_for
from tests.chaos.real.recoveries import Fault

DONE = JobStatus.SUCCEEDED
HELD_AT_COMMIT = ("P5", "P7", "P8", "P9")


def child_killed(case: Case) -> None:
    if case.phase == "P5":  # the child of a new claim, before its first event
        (case.gates / "start.killed").touch()
        case.submit()
    elif case.phase == "P9":  # after its last step
        (case.gates / "finalise.killed").touch()
        case.submit()
    else:
        case.arrive()
        for core in case.holder.cores():
            with contextlib.suppress(ProcessLookupError):
                core.kill()
        case.leave()
    if case.phase == "P2":  # a teacher that kills its reader is rejected
        case.expect_end(JobStatus.FAILED, code="teacher_rejected")
    else:
        # A child that had done its work when it was killed is not missed.
        case.expect_end(attempt=None if case.phase in ("P7", "P8") else 2)


def worker_killed(case: Case) -> None:
    case.arrive()
    fence = case.job().fence if case.job_id else 0
    if case.phase in ("P4", "P10"):
        for distiller in case.fleet.distillers:
            distiller.kill()
            distiller.start()
        case.leave()
        case.expect_end()
        return
    case.holder.kill()
    case.leave("cut")
    # At the claim nothing was taken; at any other place the attempt was.
    case.expect_end(attempt=1 if case.phase == "P5" else 2)
    fault = Fault(f"F2-{case.phase}", case.job_id, case.struck_at, fence)
    case.recovered = fault.recovery(case.fleet.service)


def worker_killed_as_commit_arrives(case: Case) -> None:
    """The COMMIT of a killed worker still reaches the database."""
    if case.phase not in HELD_AT_COMMIT:
        return
    case.arrive()
    case.holder.kill()
    case.leave("forward")
    case.expect_end(attempt=1 if case.phase == "P9" else 2)


def worker_drained(case: Case) -> None:
    case.arrive()
    if case.phase == "P4":
        case.fleet.distillers[0].terminate()
    else:
        case.holder.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    case.leave()
    if case.phase != "P4":
        case.holder.process.wait(60)  # type: ignore[union-attr]
    case.expect_end(attempt=1)


def worker_frozen(case: Case) -> None:
    case.arrive()
    case.holder.send(signal.SIGSTOP)
    case.leave("cut" if case.phase in HELD_AT_COMMIT else "forward")
    zombie = case.holder
    is_held = case.phase != "P5"
    job = case.expect_end(attempt=1 + is_held)
    zombie.send(signal.SIGCONT)
    wait_for(lambda: not zombie.cores(), 30, "the zombie ends its child")
    time.sleep(0.5)  # what it might still write
    assert case.job() == job
    assert zombie.alive()
    case.expect_end(attempt=1 + is_held)


def out_of_memory(case: Case) -> None:
    point = {"P2": "inspect", "P6": "step", "P7": "saved", "P9": "finalise"}[case.phase]
    (case.gates / f"{point}.memory").touch()
    case.submit()
    case.expect_end(attempt=2)


def api_killed(case: Case) -> None:
    api = case.fleet.api
    if case.phase == "P1":
        case.send_half_and(api.kill)
        api.start()
        case.submit()
    elif case.phase == "P3":
        hold = case.fleet.hold([api], b'"status":"validating"')
        asking = threading.Thread(target=case.post)
        asking.start()
        assert hold.at_commit.wait(30)
        api.kill()
        hold.let("forward")  # the row is written, and no client has an answer
        asking.join()
        api.start()
        case.submit()
        body = case.ask("GET", "/jobs")[1]
        assert sum(job["id"] == case.job_id for job in body["data"]) == 1
    else:
        case.arrive()
        with contextlib.suppress(Exception), case.fleet.client.stream("GET", case.student) as answer:
            next(answer.iter_raw())
            api.kill()
        api.kill()
        api.start()
        wait_for(lambda: case.ask("GET", case.student)[0] == 200, 30, "the download comes again")
    case.expect_end()
