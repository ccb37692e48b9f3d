"""Servers that stop or lose data, and connections that break, while a job is held in a phase.

Every function strikes, releases the job, and checks its end.
"""

import threading
import time

from jobs.states import JobStatus
from tests.chaos.real.case import GATES_BEFORE_FILES, Case
from tests.chaos.real.fleet import wait_for

DONE = JobStatus.SUCCEEDED
HELD_AT_COMMIT = ("P5", "P7", "P8", "P9")


def broker_down(case: Case) -> None:
    valkey = case.fleet.servers.valkey
    if case.phase == "P3":
        valkey.kill()
        case.submit()
    else:
        case.arrive()
        valkey.kill()
    case.leave()
    time.sleep(1.5)
    valkey.start()
    case.expect_end(attempt=1)


def broker_forgets(case: Case) -> None:
    case.arrive()
    case.fleet.servers.valkey.flush()
    case.leave()
    case.expect_end(attempt=1)


def database_restarts(case: Case) -> None:
    postgres = case.fleet.servers.postgres
    if case.phase == "P1":
        case.send_half_and(postgres.kill)
    elif case.phase == "P3":
        hold = case.fleet.hold([case.fleet.api], b'"status":"validating"')
        asking = threading.Thread(target=case.post)
        asking.start()
        assert hold.at_commit.wait(30)
        postgres.kill()
        hold.let("forward")
        asking.join()
    else:
        case.arrive()
        postgres.kill()
        case.leave()
    status, _ = case.ask("GET", "/jobs")
    assert status == 503
    postgres.start()
    if not case.job_id:
        case.submit()
    # A claim that was answered may have been lost with its lease in the outage, never more than that.
    job = case.expect_end(attempt=None)
    assert job.attempt <= 2


def cut_at_commit(case: Case, fate: str) -> None:
    fleet = case.fleet
    if case.phase == "P1":  # nothing is committed while a body comes in: its way to the store is cut
        case.send_half_and(fleet.api.store.disconnect)
        case.submit()
    elif case.phase == "P3":
        hold = fleet.hold([fleet.api], b'"status":"validating"')
        asking = threading.Thread(target=case.post)
        asking.start()
        assert hold.at_commit.wait(30)
        hold.let(fate)  # type: ignore[arg-type]
        asking.join()
        case.submit()
    elif case.phase == "P2":
        case.hold = fleet.hold(fleet.inspectors, b'"status":"queued"')
        case.submit()
        assert case.hold.at_commit.wait(30)
        case.leave(fate)  # type: ignore[arg-type]
    elif case.phase == "P10":
        case.arrive()
        hold = fleet.hold([fleet.api], b"DELETE FROM job")
        asking = threading.Thread(target=lambda: case.ask("DELETE", f"/jobs/{case.job_id}"))
        asking.start()
        assert hold.at_commit.wait(30)
        hold.let(fate)  # type: ignore[arg-type]
        asking.join()
        status, _ = case.ask("GET", f"/jobs/{case.job_id}")
        assert status == (404 if fate == "unanswered" else 200)
        assert case.ask("DELETE", f"/jobs/{case.job_id}")[0] in (204, 404)
        return
    else:
        case.arrive()
        case.leave(fate)  # type: ignore[arg-type]
    case.expect_end(attempt=1)


def commit_cut(case: Case) -> None:
    cut_at_commit(case, "cut")


def commit_unanswered(case: Case) -> None:
    cut_at_commit(case, "unanswered")


def store_down(case: Case) -> None:
    fleet = case.fleet
    if case.phase == "P1":
        assert case.send_half_and(lambda: fleet.api.store.turn("refuse")) in (503, 0)
        fleet.api.store.turn("pass")
        case.submit()
    elif case.phase == "P10":
        case.arrive()
        fleet.api.store.turn("refuse")
        assert case.ask("GET", case.student)[0] == 503
        fleet.api.store.turn("pass")
        assert case.ask("GET", case.student)[0] == 200
    else:
        case.arrive(GATES_BEFORE_FILES)
        for worker in [*fleet.inspectors, *fleet.distillers]:
            worker.store.turn("refuse")
        case.leave()
        time.sleep(2.0)
        for worker in [*fleet.inspectors, *fleet.distillers]:
            worker.store.turn("pass")
    case.expect_end(attempt=1)


def black_hole(case: Case) -> None:
    case.arrive()
    if case.phase == "P4":  # between the broker and those who should hear of it
        for distiller in case.fleet.distillers:
            distiller.broker.turn("hole")
        case.leave()
        time.sleep(1.5)
        for distiller in case.fleet.distillers:
            distiller.broker.turn("pass")
            distiller.broker.disconnect()
        case.expect_end(attempt=1)
        return
    member = case.holder
    for proxy in member.proxies:
        proxy.turn("hole")
    case.leave("cut" if case.phase in HELD_AT_COMMIT else "forward")
    job = case.expect_end(attempt=1 if case.phase == "P5" else 2)
    for proxy in member.proxies:
        proxy.turn("pass")
    wait_for(lambda: not member.cores(), 40, "the worker ends the core of its lost job")
    time.sleep(0.5)
    assert case.job() == job
