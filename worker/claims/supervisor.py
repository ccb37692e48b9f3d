"""Claim a job, work on it, and leave it in a state that is true, whatever happened."""

import contextlib
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
from jobs.values import Claim, Job
from nayer_core.contract.disk import disk_trouble
from nayer_core.contract.errors import ErrorCode
from worker.claims.attempt import Attempt, Workplace
from worker.claims.lease import Drain, Lease, StopReason
from worker.claims.outcomes import Crashed, DiskFailed, Refused, Stopped
from worker.flows.distill import distill
from worker.flows.inspect_uploads import validate
from worker.logs import job_in_log
from worker.process.scratch import Scratch, default_root

logger = logging.getLogger(__name__)

# -P keeps the working folder, where a job's files lie, out of the module search path.
CORE_PROGRAM = (sys.executable, "-P", "-m", "nayer_core")

_RETRY_SECONDS = 0.5
# With a full disk: time for another worker to take the job, and for an operator to make room.
_REST_SECONDS = 60.0

_FLOWS: Mapping[QueueName, Callable[[Attempt], Job]] = {"inspect": validate, "distill": distill}


class Supervisor:
    """Works off queues in this process. Safe to call from several threads.

    Args:
        settings: leases, limits and where everything is.
        program: the command that precedes the core's arguments.
    """

    def __init__(self, settings: Settings, program: Sequence[str] = CORE_PROGRAM):
        self.drain = Drain(settings.drain_seconds)
        self._settings = settings
        self._resources = Resources.open(settings)
        self._service = WorkerJobs(self._resources)
        self._scratch = Scratch(settings.scratch_dir or default_root())
        self._place = Workplace(
            self._service, Storage.open(settings.storage_url), settings, self.drain, program
        )
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._claims = itertools.count(1)
        self._rest_until = 0.0
        self._busy: set[int] = set()  # the threads that work off a queue

    def work_off(self, queue: QueueName) -> None:
        """Take jobs of a queue, best first, until none is left or the worker is to go home."""
        thread = threading.get_ident()
        self._busy.add(thread)
        try:
            while not self.drain.requested and time.monotonic() >= self._rest_until:
                claim = self._claim(queue)
                if claim is None:
                    return
                with job_in_log(claim.job.id):
                    self._work_on(claim)
                if time.monotonic() < self._rest_until:
                    return
        finally:
            self._busy.discard(thread)

    @property
    def is_busy(self) -> bool:
        """Whether a queue is being worked off in any thread."""
        return bool(self._busy)

    def close(self) -> None:
        """Remove the scratch folder and give back connections."""
        self._scratch.close()
        self._resources.close()

    def _claim(self, queue: QueueName) -> Claim | None:
        """Take a job. Where no answer comes the same is asked again: the lost one may have been a job."""
        name = f"{self._name}:{next(self._claims)}"
        until = time.monotonic() + self._settings.lease_seconds
        repeated = False
        while True:
            try:
                return self._service.claim(queue, name, repeated=repeated)
            except ServiceUnavailable as error:
                logger.warning("cannot look for work: %s", error.message)
            repeated = True
            if self.drain.requested or time.monotonic() > until:
                return None  # upkeep rings again
            time.sleep(_RETRY_SECONDS)

    def _work_on(self, claim: Claim) -> None:
        logger.info(
            "claimed", extra={"queue": claim.queue, "fence": claim.fence, "attempt": claim.job.attempt}
        )
        with contextlib.ExitStack() as stack:
            try:
                lease = stack.enter_context(
                    Lease(self._service, claim, self._settings.lease_seconds, self.drain)
                )
                job = self._try(claim, lease)
                logger.info("left the job %s", job.status)
            except LeaseLost:
                logger.warning("the job is no longer ours; nothing more is written")
            except (JobsError, OSError):
                logger.exception("left the job to the reaper")

    def _try(self, claim: Claim, lease: Lease) -> Job:
        try:
            with self._scratch.folder(claim.job.id) as folder:
                return _carry_out(Attempt(self._place, claim, lease, folder))
        except (DiskFailed, OSError) as error:
            reason = error.reason if isinstance(error, DiskFailed) else disk_trouble(error)
            if reason is None:
                raise
            self._rest_until = time.monotonic() + _REST_SECONDS
            logger.error("resting for %g s, for the disk %s", _REST_SECONDS, reason)
            told = f"the disk of the {claim.queue} worker {reason}"
            return self._service.release(claim, counts_attempt=True, reason=told, code=ErrorCode.DISK_FAILED)


def _carry_out(attempt: Attempt) -> Job:
    claim, service = attempt.claim, attempt.service
    try:
        return _FLOWS[claim.queue](attempt)
    except Refused as refusal:
        reasons = (refusal.code, refusal.message, refusal.hint, refusal.retryable)
        left = refusal.artifacts
        return attempt.conclude(lambda: service.fail(claim, *reasons, artifacts=left))
    except Stopped as stop:
        return _stop(attempt, stop.reason)
    except DiskFailed:
        raise
    except Crashed as crash:
        reason = f"the {claim.queue} process broke down: {crash.reason}"
        logger.error(reason)
        return attempt.conclude(lambda: service.release(claim, counts_attempt=True, reason=reason))
    except (LeaseLost, ServiceUnavailable):
        raise
    except Exception as error:
        if (trouble := disk_trouble(error)) is not None:
            raise DiskFailed(trouble) from error
        logger.exception("the attempt failed in the worker itself")
        reason = f"the worker met an unexpected error ({type(error).__name__})"
        return attempt.conclude(lambda: service.release(claim, counts_attempt=True, reason=reason))


def _stop(attempt: Attempt, reason: StopReason) -> Job:
    claim, service = attempt.claim, attempt.service
    if reason is StopReason.LOST:
        raise LeaseLost(f"Job {claim.job.id} is no longer held under fence {claim.fence}.")
    if reason is StopReason.CANCELLED:
        return attempt.conclude(lambda: service.cancelled(claim))
    if reason is StopReason.MAX_RUNTIME:
        limit = claim.job.max_runtime_seconds
        message = f"The job ran longer than its max_runtime_seconds of {limit}."
        hint = "Raise max_runtime_seconds, or ask for fewer epochs or a quicker preset."
        return attempt.conclude(lambda: service.fail(claim, ErrorCode.MAX_RUNTIME_EXCEEDED, message, hint))
    told = "it was asked to pause" if reason is StopReason.PAUSED else "the worker was shut down"
    return attempt.conclude(lambda: service.release(claim, counts_attempt=False, reason=told))
