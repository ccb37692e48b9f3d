"""Cancels, upkeeps, messages and deployments at the wrong moment.

Every function strikes, releases the job, and checks its end.
"""

import signal
import subprocess
import sys
import threading
import time

from jobs.states import JobStatus
from tests.chaos.real.case import Case
from tests.chaos.real.fleet import LEASE_SECONDS, wait_for

DONE = JobStatus.SUCCEEDED
HELD_AT_COMMIT = ("P5", "P7", "P8", "P9")


def delivered_five_times(case: Case) -> None:
    case.arrive()
    queue = "inspect" if case.phase == "P2" else "distill"
    for _ in range(5):
        assert case.fleet.service.resources.doorbell.ring(queue, case.job_id)  # type: ignore[arg-type]
    time.sleep(0.5)  # those that are free have looked by then
    case.leave()
    case.expect_end(attempt=1)
    assert case.job().fence == 2  # one inspection, one distillation


def cancelled(case: Case) -> None:
    if case.phase == "P3":
        case.submit()
    else:
        case.arrive()
    began = time.monotonic()
    asking = threading.Thread(target=lambda: case.ask("POST", f"/jobs/{case.job_id}/cancel"))
    asking.start()
    time.sleep(0.3)  # it waits for the row while a transaction is held
    case.leave() if case.phase in HELD_AT_COMMIT or case.phase == "P4" else None
    asking.join()
    over = (
        (JobStatus.CANCELLED,)
        if case.phase in ("P2", "P3", "P4", "P5", "P6")
        else (
            JobStatus.CANCELLED,
            DONE,
        )
    )
    wait_for(lambda: case.job().is_terminal, 30, "the end")
    case.cancel_seconds = time.monotonic() - began
    case.leave()
    job = case.expect_end(*over, attempt=1)
    status, body = case.ask("POST", f"/jobs/{case.job_id}/cancel")
    assert (status, body["status"]) == (200, job.status)


def upkeeps(case: Case) -> None:
    fleet = case.fleet
    fleet.upkeep.send(signal.SIGSTOP)  # none
    case.submit() if case.phase == "P3" else case.arrive()
    is_held = case.phase in ("P2", "P5", "P6", "P9")
    if is_held:
        case.holder.kill()
        case.leave("forward" if case.phase == "P5" else "cut")
        time.sleep(LEASE_SECONDS + 0.5)
        assert not case.job().is_terminal
        assert case.job().attempt == 1
    else:
        case.leave()
    fleet.upkeep.kill()  # it crashes, wherever it was
    second = subprocess.Popen([sys.executable, "-m", "worker.upkeep"], env=fleet.upkeep.environment)
    try:
        fleet.upkeep.start()
        case.expect_end(attempt=1 + is_held)
    finally:
        second.kill()
        second.wait()


def deployment(case: Case) -> None:
    fleet = case.fleet
    if case.phase == "P1":
        case.send_half_and(lambda: fleet.api.send(signal.SIGTERM))
    elif case.phase == "P3":
        case.submit()
    else:
        case.arrive()
    for member in fleet.members:
        if member.alive():
            member.send(signal.SIGTERM)
    case.leave()
    for member in fleet.members:
        if member.process is not None:
            member.process.wait(60)
    subprocess.run([sys.executable, "-m", "migrations"], env=fleet.api.environment, check=True)
    fleet.start()
    if not case.job_id:
        case.submit()
    case.expect_end(attempt=1)
