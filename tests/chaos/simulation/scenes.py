"""Each fault at a stage of a job, and its expected outcome: the simulated half of the matrix."""

import errno
import threading
import time
from collections.abc import Callable
from unittest.mock import patch

import pytest

from jobs.errors import FileCorrupt
from jobs.states import JobStatus
from jobs.values.jobs import Job
from nayer_core.contract.errors import ErrorCode
from tests.chaos.simulation.players import ChildKilled, Worker, refusal
from tests.chaos.simulation.stage import Stage
from tests.support.services import Services

DONE = JobStatus.SUCCEEDED
HOLDING_PHASES = ("P2", "P5", "P6", "P7", "P8", "P9")


def expect_end(stage: Stage, status: JobStatus = DONE, attempt: int = 1, code: str | None = None) -> Job:
    job = stage.end()
    assert (job.status, job.attempt) == (status, attempt), job
    assert code is None or (job.error or {})["code"] == code
    return job


def child_killed(stage: Stage) -> None:
    stage.into_the_work()
    stage.call(stage.hit, ChildKilled())
    expect_end(stage, attempt=2)


def worker_killed(stage: Stage) -> None:
    if stage.nth:
        stage.into_the_work()
    is_held = stage.hit is not None and stage.hit[0].claims is not None
    stage.kill()
    stage.lose_lease()
    expect_end(stage, attempt=1 + is_held)


def worker_drained(stage: Stage) -> None:
    for player, _ in stage.workers():
        player.draining = True
    expect_end(stage)


def worker_frozen(stage: Stage) -> None:
    stage.into_the_work()
    zombie = stage.freeze()
    if stage.nth:  # it comes back while another holds the job
        stage.play_until_held_again(zombie)
        version = stage.job().version
        stage.wake(zombie)
        assert stage.job().version == version
        expect_end(stage, attempt=2)
        return
    job = expect_end(stage, attempt=2)
    refused = stage.world.ledger.refused
    stage.wake(zombie)
    assert stage.job() == job
    assert stage.world.ledger.refused > refused or stage.phase == "P9"
    stage.verdict()


def out_of_memory(stage: Stage) -> None:
    stage.call(stage.hit, ChildKilled())
    if stage.nth:  # once
        expect_end(stage, attempt=2)
        return
    for _ in range(2):  # again and again
        again = Stage.__new__(Stage)
        again.__dict__ = stage.__dict__
        assert again._reach()
        stage.call(stage.hit, ChildKilled())
    expect_end(stage, JobStatus.FAILED, attempt=3, code="worker_lost")


def api_killed(stage: Stage) -> None:
    if stage.phase == "P10":
        stage.world.weather.database.append("unanswered")
        with pytest.raises(Exception, match="database"):
            stage.world.service.clients.cancel(stage.client.job_id)
    elif stage.nth:  # the row is there, the answer is not
        stage.world.weather.database.append("unanswered")
        stage.call(stage.hit)
    stage.kill()
    expect_end(stage)


def broker_down(stage: Stage) -> None:
    stage.world.bell.down = True
    for playing in list(stage.playing):
        while stage.call(playing) is not None:
            pass
    expect_end(stage)


def broker_forgets(stage: Stage) -> None:
    stage.world.bell.flush()
    expect_end(stage)


def delivered_five_times(stage: Stage) -> None:
    before = [stage.job().version] if stage.client.job_id else []
    more = [Worker(stage.world, queue) for queue in ("inspect", "distill") for _ in range(5)]
    claims = [(worker, worker.play()) for worker in more]
    for playing in claims:
        stage.call(playing)
        stage.playing.append(playing)
    for playing in claims:
        stage.call(playing)
    owners = [worker for worker, _ in claims if worker.claims is not None]
    assert len(owners) == (stage.phase in ("P4", "P5")), "one owner of a waiting job, none of a held one"
    assert stage.phase in ("P4", "P5") or before == [stage.job().version]
    expect_end(stage)


def database_restarts(stage: Stage) -> None:
    stage.world.weather.database.extend(["cut", "refused", "refused"])
    if stage.phase == "P10":
        for _ in range(3):
            with pytest.raises(Exception, match="database"):
                stage.world.service.clients.get(stage.client.job_id)
    expect_end(stage)


def cut_at_commit(stage: Stage) -> None:
    if stage.phase == "P1":  # nothing is committed while an upload comes in: it is the store's answer
        stage.world.weather.store.append("unanswered")
    stage.world.weather.database.append("unanswered" if stage.nth else "cut")
    if stage.phase == "P10":
        with pytest.raises(Exception, match="database"):
            stage.world.service.clients.cancel(stage.client.job_id)
    elif stage.hit in stage.playing:
        stage.call(stage.hit)
    expect_end(stage)


def store_away(stage: Stage) -> None:
    stage.world.weather.store.extend(["away"] * 3)
    if stage.phase == "P10":
        for _ in range(3):
            with pytest.raises(Exception, match="storage"):
                stage.world.fetch(stage.job().uploads["teacher"])
    elif stage.hit in stage.playing:
        stage.call(stage.hit)
    expect_end(stage)


def store_damages(stage: Stage) -> None:
    job: Job
    if stage.phase in ("P1", "P9"):  # the stored bytes differ from the ones that were sent
        before = len(list(stage.world.storage.list()))
        while len(list(stage.world.storage.list())) == before:
            stage.world.weather.store.append("flipped")
            if stage.call(stage.hit) is None:
                break
        stage.world.weather.store.clear()
        if stage.phase == "P1":
            expect_end(stage, JobStatus.FAILED, attempt=3, code="worker_lost")
        return
    if stage.phase == "P7":  # the newest state is damaged: the run continues from the one before
        stage.world.weather.store.append("flipped")
        stage.call(stage.hit)
        stage.call(stage.hit)
        stage.kill()
        stage.lose_lease()
        expect_end(stage, attempt=2)
        return
    if stage.phase == "P10":
        job = stage.job()
        for fault in ("truncated", "flipped"):
            stage.world.weather.store.append(fault)
            with pytest.raises(FileCorrupt):
                stage.world.fetch(_student(job))
    else:
        stage.world.weather.store.extend(["truncated", "flipped"])
    expect_end(stage)


def _student(job: Job):  # type: ignore[no-untyped-def]
    from jobs.values.files import StoredFile

    (artifact,) = [artifact for artifact in job.artifacts if artifact.name == "student.safetensors"]
    return StoredFile(artifact.key, artifact.sha256, artifact.bytes)


def disk_full(stage: Stage) -> None:
    if stage.phase in ("P5", "P6"):  # the worker's own disk
        stage.into_the_work()
        stage.call(stage.hit, OSError(errno.ENOSPC, "No space left on device"))
        expect_end(stage, attempt=2)
        return
    stage.world.weather.store.extend(["full", "full"])
    expect_end(stage)


def refused_with(code: ErrorCode) -> Callable[[Stage], None]:
    def scene(stage: Stage) -> None:
        stage.call(stage.hit, refusal(code))
        expect_end(stage, JobStatus.FAILED, code=code.value)
        assert stage.world.execute("SELECT count(*) FROM checkpoint") == [(0,)]

    return scene


def not_finite(stage: Stage) -> None:
    refused_with(ErrorCode.NON_FINITE_WEIGHTS if stage.phase == "P2" else ErrorCode.DIVERGED)(stage)


def clock_is_wrong(stage: Stage) -> None:
    real, off = time.time, (3600, -3600, 0)[stage.nth % 3]
    with patch("time.time", lambda: real() + off):
        stage.world.let_time_pass()
        stage.world.upkeep()  # takes nothing from a worker that is alive
        expect_end(stage)


def cancelled(stage: Stage) -> None:
    if stage.phase == "P3":
        stage.call(stage.hit)
    answer = stage.world.service.clients.cancel(stage.client.job_id)
    job = stage.end()
    assert job.status in ((answer.status,) if answer.is_terminal else (DONE, JobStatus.CANCELLED))
    assert job.status is JobStatus.CANCELLED or stage.phase in ("P8", "P9", "P10", "P7", "P2", "P6")
    assert stage.world.service.clients.cancel(job.id) == job


def black_hole(stage: Stage) -> None:
    if stage.phase == "P4":
        stage.world.bell.flush()
        expect_end(stage)
        return
    stage.into_the_work()
    zombie = stage.freeze()
    expect_end(stage, attempt=2)
    stage.world.weather.database.extend(["refused"] * 5)  # no answer, then a refusal
    job = stage.job()
    stage.wake(zombie)
    assert stage.job() == job
    stage.verdict()


def upkeeps(stage: Stage) -> None:
    is_held = stage.phase in HOLDING_PHASES
    if is_held:
        stage.into_the_work()
        stage.kill()
    stage.world.run_out_leases()
    before = stage.job() if stage.client.job_id else None
    assert before is None or stage.job() == before  # none: it waits, and nothing is lost
    stage.world.weather.database.append("cut")  # one that dies in the middle
    stage.world.upkeep(crashing=True)
    counts: list[int] = []
    two = [
        threading.Thread(target=lambda: counts.append(stage.world.observer.upkeep.reap())) for _ in range(2)
    ]
    for thread in two:
        thread.start()
    for thread in two:
        thread.join()
    assert sum(counts) <= 1, "two upkeeps took one job"
    expect_end(stage, attempt=1 + is_held)


def deployment(stage: Stage) -> None:
    for player, _ in stage.workers():
        player.draining = True
    world = stage.world
    world.service.resources.database.close()  # every pooled connection is a new program's
    world.service = Services(world.service.resources)
    expect_end(stage)


SCENES: dict[str, Callable[[Stage], None]] = {
    "F1": child_killed,
    "F2": worker_killed,
    "F3": worker_drained,
    "F4": worker_frozen,
    "F5": out_of_memory,
    "F6": api_killed,
    "F7": broker_down,
    "F8": broker_forgets,
    "F9": delivered_five_times,
    "F10": database_restarts,
    "F11": cut_at_commit,
    "F12": store_away,
    "F13": store_damages,
    "F14": disk_full,
    "F15": refused_with(ErrorCode.DEVICE_OUT_OF_MEMORY),
    "F16": not_finite,
    "F17": clock_is_wrong,
    "F18": cancelled,
    "F19": black_hole,
    "F20": upkeeps,
    "F21": deployment,
}
