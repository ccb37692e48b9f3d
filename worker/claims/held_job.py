"""A job that this worker holds, with all reads and writes of its holder."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from jobs.errors import LeaseLost, ServiceUnavailable
from jobs.service.for_workers import WorkerJobs
from jobs.values.claims import Claim, StageResult
from jobs.values.files import Artifact, Bank, Checkpoint, StoredFile
from jobs.values.jobs import Job
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import Event
from worker.claims.drain import Drain
from worker.claims.event_writer import EventWriter
from worker.claims.lease import Lease
from worker.claims.patience import Patience

Result = TypeVar("Result")


class HeldJob:
    """A claim with its lease: a method for each read and write of its holder.

    A method is one transaction, which is repeated while the database does not answer or the lease is in
    doubt; `Patience` limits the time. Each method may raise:

        LeaseLost: the job is another worker's, or has ended.
        ServiceUnavailable: the outage was too long.
        Stopped: the job must stop while the transaction waits. The methods that end the claim, which
            return a `Job`, do not raise it.

    Args:
        service: does the transactions.
        claim: the job, and the right to it.
        lease: kept alive by its own thread while the job is worked on.
        drain: the worker's shutdown.
    """

    def __init__(self, service: WorkerJobs, claim: Claim, lease: Lease, drain: Drain):
        self.id = claim.job.id
        self.snapshot = claim.job  # as it was when it was claimed
        self.queue = claim.queue
        self.lease = lease
        self.drain = drain
        self._service = service
        self._claim = claim
        self.events = EventWriter(lambda lines: self._try(lambda: service.record(claim, lines)), lease)

    def patience(self, *, ignore_stop: bool = False) -> Patience:
        """Start to measure how long an action is repeated."""
        return Patience(self.lease, self.drain, ignore_stop=ignore_stop)

    def repeat(self, action: Callable[[], Result], patience: Patience | None = None) -> Result:
        """Do an action that needs a server, and repeat it during an outage.

        Args:
            action: must have one effect even if it is repeated.
            patience: measures the pauses; a new one, unless they belong to a longer action.
        """
        patience = patience or self.patience()
        while True:
            cause = "the lease is in doubt"
            if self.lease.is_certain():
                try:
                    return self._try(action)
                except ServiceUnavailable as error:
                    cause = error.message
            patience.wait(cause)

    def log_events(self, events: Sequence[Event]) -> None:
        """Write the worker's own events into the job's log; later, if the database does not answer."""
        self.events.add(events)
        self.events.flush()

    def add_artifact(self, artifact: Artifact) -> None:
        """Publish a stored file."""
        self.repeat(lambda: self._service.add_artifact(self._claim, artifact))

    def inputs(self) -> dict[str, StoredFile]:
        """Return the job's canonical files by name."""
        return self.repeat(lambda: self._service.inputs(self._claim))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the states that the run can continue from, newest first."""
        return self.repeat(lambda: self._service.checkpoints(self._claim))

    def add_checkpoint(self, epoch: int, step: int, files: Mapping[str, StoredFile]) -> Checkpoint:
        """Make this state of the run current for the next claim; does not wait during an outage."""
        checkpoint = Checkpoint(self._claim.fence, epoch, step, files)
        self._try(lambda: self._service.add_checkpoint(self._claim, checkpoint))
        return checkpoint

    def log_resume(self, checkpoint: Checkpoint) -> None:
        """Report in the job's log from which state this claim continues."""
        self.repeat(lambda: self._service.log_resume(self._claim, checkpoint))

    def find_embedding(self, key: str) -> StoredFile | None:
        """Return the label-text embeddings that were saved under a key."""
        return self.repeat(lambda: self._service.find_embedding(key))

    def save_embedding(self, key: str, file: StoredFile) -> None:
        """Keep label-text embeddings for later jobs."""
        self.repeat(lambda: self._service.save_embedding(key, file))

    def find_bank(self, key: str) -> Bank | None:
        """Return the warm bank that was saved under a key, and note its use."""
        return self.repeat(lambda: self._service.use_bank(key))

    def save_bank(self, key: str, file: StoredFile) -> None:
        """Keep this job's warm bank for later jobs."""
        self.repeat(lambda: self._service.save_bank(self._claim, key, file))

    def drop_bank(self, key: str, bank: Bank) -> None:
        """Drop a warm bank that the store has lost or damaged."""
        self.repeat(lambda: self._service.drop_bank(key, bank))

    def set_bank(self, bank: Bank) -> None:
        """Record in the job's specification with which warm bank its run begins."""
        self.repeat(lambda: self._service.set_bank(self._claim, bank))

    def end_stage(self, result: StageResult) -> Job:
        """Write the results of the stage: the job waits for its next stage, or it has succeeded."""
        return self._end(lambda: self._service.end_stage(self._claim, result))

    def fail(
        self,
        code: ErrorCode,
        message: str,
        hint: str,
        *,
        retryable: bool = False,
        artifacts: Sequence[Artifact] = (),
    ) -> Job:
        """End the job as failed; it is not tried again."""
        return self._end(
            lambda: self._service.fail(self._claim, code, message, hint, retryable, artifacts=artifacts)
        )

    def cancel(self) -> Job:
        """End the job as cancelled."""
        return self._end(lambda: self._service.cancel(self._claim))

    def release(self, reason: str, *, counts_attempt: bool, code: ErrorCode = ErrorCode.WORKER_LOST) -> Job:
        """Give the job back to its queue.

        Args:
            reason: why, for the client.
            counts_attempt: whether an attempt is used up; after the last one the job fails with `code`.
            code: `worker_lost`, or `disk_failed`.
        """
        return self._end(
            lambda: self._service.release(
                self._claim, counts_attempt=counts_attempt, reason=reason, code=code
            )
        )

    def _end(self, transaction: Callable[[], Job]) -> Job:
        return self.repeat(transaction, self.patience(ignore_stop=True))

    def _try(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except LeaseLost:
            self.lease.lose()
            raise
