"""Claims a job, works on it, and ends the claim with a correct state in every case."""

import itertools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from jobs.errors import JobsError, LeaseLost, ServiceUnavailable
from jobs.files.store import Storage
from jobs.service.for_workers import WorkerJobs
from jobs.service.resources import Resources
from jobs.settings import Settings
from jobs.states import QueueName
from jobs.values.claims import Claim, StageResult
from jobs.values.jobs import Job
from nayer_core.contract.disk import disk_trouble
from nayer_core.contract.errors import ErrorCode
from worker.claims.drain import Drain
from worker.claims.held_job import HeldJob
from worker.claims.lease import Lease, StopReason
from worker.claims.outcomes import Crashed, DiskFailed, Refused, Stopped
from worker.claims.workbench import Workbench
from worker.logs import job_in_log
from worker.process.scratch import Scratch, default_root

logger = logging.getLogger(__name__)

# -P keeps the working folder, which holds a job's files, out of the module search path.
CORE_PROGRAM = (sys.executable, "-P", "-m", "nayer_core")

_RETRY_SECONDS = 0.5
# After the disk failed: time for another worker to take the job, and for an operator to make room.
_REST_SECONDS = 60.0

# Does the work of one stage of a job and returns the results, or raises an Outcome.
Flow = Callable[[HeldJob, Workbench], StageResult]
# By the name of the kind of job, and the queue of the stage.
Flows = Mapping[tuple[str, QueueName], Flow]


class Supervisor:
    """Runs the jobs of queues in this process. Safe to call from several threads.

    Args:
        settings: leases, limits and addresses of the servers.
        flows: the work on a job, for each stage of each kind.
        program: the command that precedes the core's arguments.
    """

    def __init__(
        self,
        settings: Settings,
        flows: Flows,
        program: Sequence[str] = CORE_PROGRAM,
    ):
        self.drain = Drain(settings.drain_seconds)
        self._settings = settings
        self._flows = flows
        self._program = program
        self._resources = Resources.open(settings)
        self._service = WorkerJobs(self._resources)
        self._storage = Storage.open(settings.storage_url)
        self._scratch = Scratch(settings.scratch_dir or default_root())
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._claim_numbers = itertools.count(1)
        self._rest_until = 0.0
        self._busy_threads: set[int] = set()

    def run_jobs(self, queue: QueueName) -> None:
        """Take jobs of a queue, best first, until none is left or the worker shuts down."""
        thread = threading.get_ident()
        self._busy_threads.add(thread)
        try:
            while not self.drain.is_requested and time.monotonic() >= self._rest_until:
                claim = self._claim(queue)
                if claim is None:
                    return
                with job_in_log(claim.job.id):
                    self._work_on(claim)
                if time.monotonic() < self._rest_until:
                    return
        finally:
            self._busy_threads.discard(thread)

    @property
    def is_busy(self) -> bool:
        """Whether any thread runs the jobs of a queue."""
        return bool(self._busy_threads)

    def close(self) -> None:
        """Remove the scratch folder and close all connections."""
        self._scratch.close()
        self._resources.close()

    def _claim(self, queue: QueueName) -> Claim | None:
        """Take a job. Without an answer the request is repeated: the lost answer may contain a job."""
        name = f"{self._name}:{next(self._claim_numbers)}"
        until = time.monotonic() + self._settings.lease_seconds
        is_repeated = False
        while True:
            try:
                return self._service.claim(queue, name, repeated=is_repeated)
            except ServiceUnavailable as error:
                logger.warning("cannot look for work: %s", error.message)
            is_repeated = True
            if self.drain.is_requested or time.monotonic() > until:
                return None  # upkeep rings again
            time.sleep(_RETRY_SECONDS)

    def _work_on(self, claim: Claim) -> None:
        logger.info(
            "claimed", extra={"queue": claim.queue, "fence": claim.fence, "attempt": claim.job.attempt}
        )
        lease = Lease(lambda: self._service.heartbeat(claim), self._settings.lease_seconds, self.drain)
        try:
            with lease:
                result = self._carry_out(HeldJob(self._service, claim, lease, self.drain))
            logger.info("the job is now %s", result.status)
        except LeaseLost:
            logger.warning("the job is no longer ours; nothing more is written")
        except (JobsError, OSError):
            logger.exception("the job is left to the reaper")

    def _carry_out(self, job: HeldJob) -> Job:
        """Run the stage and end the claim with its outcome; after a disk failure the worker pauses."""
        try:
            with self._scratch.folder(job.id) as folder:
                bench = Workbench(job, folder, self._storage, self._settings, self._program)
                return _run_stage(self._flows, job, bench)
        except (DiskFailed, OSError) as error:
            trouble = error.reason if isinstance(error, DiskFailed) else disk_trouble(error)
            if trouble is None:
                raise
            self._rest_until = time.monotonic() + _REST_SECONDS
            logger.error("no new job for %g s, because the disk %s", _REST_SECONDS, trouble)
            reason = f"the disk of the {job.queue} worker {trouble}"
            return job.release(reason, counts_attempt=True, code=ErrorCode.DISK_FAILED)


def _run_stage(flows: Flows, job: HeldJob, bench: Workbench) -> Job:
    """Run a stage. An error of its flow ends the claim, except a lost claim, an outage or a disk failure."""
    try:
        flow = flows[job.snapshot.kind.name, job.queue]
        return job.end_stage(flow(job, bench))
    except Refused as refusal:
        return job.fail(
            refusal.code,
            refusal.message,
            refusal.hint,
            retryable=refusal.retryable,
            artifacts=refusal.artifacts,
        )
    except Stopped as stop:
        return _end_stopped(job, stop.reason)
    except DiskFailed:
        raise
    except Crashed as crash:
        reason = f"the {job.queue} process crashed: {crash.reason}"
        logger.error(reason)
        return job.release(reason, counts_attempt=True)
    except (LeaseLost, ServiceUnavailable):
        raise
    except Exception as error:  # a bug in the worker must not leave the job without an outcome
        if (trouble := disk_trouble(error)) is not None:
            raise DiskFailed(trouble) from error
        logger.exception("the attempt failed in the worker itself")
        reason = f"the worker had an unexpected error ({type(error).__name__})"
        return job.release(reason, counts_attempt=True)


def _end_stopped(job: HeldJob, reason: StopReason) -> Job:
    if reason is StopReason.CANCELLED:
        return job.cancel()
    if reason is StopReason.MAX_RUNTIME:
        limit = job.snapshot.max_runtime_seconds
        message = f"The job ran longer than its max_runtime_seconds of {limit}."
        hint = "Raise max_runtime_seconds, or request fewer epochs or a faster preset."
        return job.fail(ErrorCode.MAX_RUNTIME_EXCEEDED, message, hint)
    is_paused = reason is StopReason.PAUSED
    return job.release(
        "the client requested a pause" if is_paused else "the worker was shut down", counts_attempt=False
    )
