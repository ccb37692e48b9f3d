"""Celery worker processes and their faults: signals, sleep, a lost message."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.local.embedded import EmbeddedValkey
from jobs.settings import Settings
from jobs.states import JobStatus
from tests.chaos.real.proxy import Proxy
from tests.support.services import Services
from tests.worker.conftest import (
    SEEDED_SECRET,
    StartProcess,
    Submit,
    wait_for,
    wait_for_status,
    wait_for_steps,
)
from worker.claims.supervisor import Supervisor


def cores_of(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    processes = psutil.Process(worker.pid).children(recursive=True)
    return [process for process in processes if "fake_core.py" in str(process.cmdline())]


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def queued_job(submit: Submit, supervisor: Supervisor, tmp_path: Path) -> str:
    """A queued job that hangs on its first worker, and succeeds on the second."""
    job_id = submit(distill="steps", marker=str(tmp_path / "once"))
    supervisor.run_jobs("inspect")
    return job_id


def test_a_message_starts_inspection_and_distillation(
    service: Services, submit: Submit, start_worker: StartProcess, tmp_path: Path
) -> None:
    start_worker("inspect", slots=2)
    start_worker("distill")
    job_id = submit()
    wait_for_status(service, job_id, JobStatus.SUCCEEDED)
    log = (tmp_path / "processes.log").read_text()
    assert job_id in log
    assert SEEDED_SECRET not in log


def test_a_worker_looks_for_jobs_when_it_starts(
    service: Services, queued_job: str, start_worker: StartProcess, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    (tmp_path / "once.distill").touch()  # so it does well at once
    valkey.flush()  # the doorbell rang, and the broker forgot
    start_worker("distill")
    wait_for_status(service, queued_job, JobStatus.SUCCEEDED)


def test_the_child_of_a_killed_worker_ends_and_another_worker_does_the_job(
    service: Services, queued_job: str, start_worker: StartProcess, start_process: StartProcess
) -> None:
    start_process("worker.upkeep")
    worker = start_worker("distill")
    wait_for_steps(service, queued_job)
    (core,) = cores_of(worker)
    worker.kill()
    worker.wait()
    wait_for(lambda: is_gone(core))
    start_worker("distill")
    job = wait_for_status(service, queued_job, JobStatus.SUCCEEDED)
    assert job.attempt == 2


def test_a_worker_that_slept_past_its_lease_writes_nothing_more(
    service: Services, queued_job: str, start_worker: StartProcess, start_process: StartProcess
) -> None:
    sleeper = start_worker("distill")
    wait_for_steps(service, queued_job)
    (core,) = cores_of(sleeper)
    sleeper.send_signal(signal.SIGSTOP)
    start_process("worker.upkeep")
    start_worker("distill")
    wait_for_status(service, queued_job, JobStatus.SUCCEEDED)
    events = service.clients.events(queued_job, limit=1000)
    version = service.clients.get(queued_job).version
    sleeper.send_signal(signal.SIGCONT)
    wait_for(lambda: is_gone(core))
    time.sleep(0.5)
    assert service.clients.events(queued_job, limit=1000) == events
    assert service.clients.get(queued_job).version == version
    assert sleeper.poll() is None  # it lives, and takes the next job


def test_sigterm_releases_the_job_and_costs_no_attempt(
    service: Services, queued_job: str, start_worker: StartProcess
) -> None:
    worker = start_worker("distill")
    wait_for_steps(service, queued_job)
    worker.terminate()
    assert worker.wait(timeout=20) == 0
    job = service.clients.get(queued_job)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
    start_worker("distill")
    wait_for_status(service, queued_job, JobStatus.SUCCEEDED)


def test_an_idle_worker_exits_at_once_and_leaves_no_file(
    start_worker: StartProcess, settings: Settings
) -> None:
    root = settings.scratch_dir
    assert root is not None
    before = set(root.glob("worker-*"))
    worker = start_worker("distill")
    (own,) = wait_for(lambda: set(root.glob("worker-*")) - before)
    wait_for(lambda: "ready" in (root / "processes.log").read_text())
    worker.terminate()
    assert worker.wait(timeout=20) == 0
    assert not own.exists()


@pytest.fixture
def broker(valkey: EmbeddedValkey) -> Iterator[Proxy]:
    """A proxy to the broker that can swallow all bytes."""
    proxy = Proxy(valkey.port)
    yield proxy
    proxy.turn("pass")
    proxy.close()


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_exits_although_its_broker_never_answers(
    service: Services,
    queued_job: str,
    start_worker: StartProcess,
    settings: Settings,
    valkey: EmbeddedValkey,
    broker: Proxy,
    tmp_path: Path,
    busy: bool,
) -> None:
    assert settings.scratch_dir is not None
    before = set(settings.scratch_dir.glob("worker-*"))
    if not busy:
        service.clients.pause(queued_job)
    url = valkey.url.replace(f":{valkey.port}/", f":{broker.port}/")
    worker = start_worker("distill", redis_url=url)
    (own,) = wait_for(lambda: set(settings.scratch_dir.glob("worker-*")) - before)
    wait_for(lambda: "ready" in (tmp_path / "processes.log").read_text())
    if busy:
        wait_for_steps(service, queued_job)
    broker.turn("hole")
    worker.terminate()
    assert worker.wait(timeout=20) == 0
    assert not own.exists()
    job = service.clients.get(queued_job)
    assert (job.status, job.attempt) == (JobStatus.QUEUED if busy else JobStatus.PAUSED, 1)
