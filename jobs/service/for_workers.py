"""A worker's operations: claim a job, renew its lease, and write progress and results under its fence."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from jobs.errors import LeaseLost
from jobs.rows import caches, checkpoints, held_jobs, repository, waiting_jobs
from jobs.rows.database import Session
from jobs.rows.tables import JobTable
from jobs.service.child_events import write_lines
from jobs.service.resources import Resources
from jobs.service.transitions import claims, endings, files, progress
from jobs.states import WAITING_IN, JobStatus, QueueName
from jobs.values.claims import Claim, Control, StageResult
from jobs.values.files import Artifact, Bank, Checkpoint, StoredFile
from jobs.values.jobs import Job
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import Event


class WorkerJobs:
    """A worker's operations on jobs. Every method is one transaction; doorbells ring after its commit.

    Every method that takes a `Claim`, except `heartbeat`, raises `LeaseLost` when the claim is no longer
    held. Every method may raise `ServiceUnavailable`, and the call may then be repeated: repeated calls
    have one effect.
    """

    def __init__(self, resources: Resources):
        self._resources = resources
        self._database = resources.database
        self._lease = timedelta(seconds=resources.settings.lease_seconds)
        self._max_attempts = resources.settings.max_attempts

    def claim(self, queue: QueueName, worker: str, *, repeated: bool = False) -> Claim | None:
        """Take the next waiting job of a queue; None if no job waits.

        The highest priority comes first, then the oldest. In queue "distill" the
        job becomes `running`; in queue "inspect" it stays `validating` through `inspect` and `embed`.

        Args:
            queue: where the job waits.
            worker: a name for the operator, as in "host:pid:7"; unique to this call and its repetitions.
            repeated: whether a call with this name raised `ServiceUnavailable`. If that call took a job,
                the same job is returned; otherwise the job would have a lease that no worker knows of.
        """
        with self._database.transaction() as session:
            row = held_jobs.find_by_worker(session, queue, worker) if repeated else None
            if row is not None:
                return Claim(row.as_job(), row.fence, queue)
            row = waiting_jobs.take_next(session, queue)
            if row is None:
                return None
            claims.claim(session, row, queue, worker, self._lease, repository.now(session))
            return Claim(repository.save(session, row), row.fence, queue)

    def heartbeat(self, claim: Claim) -> Control:
        """Renew the lease and read the client's requests; cheap enough for once a second."""
        with self._database.transaction() as session:
            return held_jobs.renew_lease(session, claim, self._lease)

    def record(self, claim: Claim, lines: Sequence[tuple[int, Event]]) -> None:
        """Write a child's output: events, metrics, progress, phase and timeline.

        Of the progress records of one phase only the newest of this call is kept. `finished`, `failed`
        and `stopped` are not written: `end_stage`, `fail` and `release` report these.

        Args:
            claim: the claim on the job.
            lines: (number of the line, event). Numbers rise through the whole claim, over all of its
                children (`inspect` then `embed`), and never repeat: a number that was written before
                under this fence is skipped, which makes a repeated call harmless.
        """
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            write_lines(session, row, lines, repository.now(session))

    def add_artifact(self, claim: Claim, artifact: Artifact) -> None:
        """Publish a stored file under its name, in place of an older one of that name."""
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            files.add_artifacts(session, row, [artifact], repository.now(session))

    def end_stage(self, claim: Claim, result: StageResult) -> Job:
        """End a stage of the job with its results, in one transaction.

        The job waits for the next stage of its kind, whose doorbell rings, or it has `succeeded`. Where a
        stage follows, a job whose end was requested meanwhile is `cancelled`.
        """
        following = claim.job.kind.stage_after(claim.queue)
        outcomes = [WAITING_IN[following], JobStatus.CANCELLED] if following else [JobStatus.SUCCEEDED]
        return self._settle(claim, outcomes, partial(claims.end_stage, queue=claim.queue, result=result))

    def inputs(self, claim: Claim) -> dict[str, StoredFile]:
        """Read the canonical files of the job by name, the `inputs` of an earlier `StageResult`."""
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            return {file.name: file.as_file() for file in row.files if file.kind == "input"}

    def add_checkpoint(self, claim: Claim, checkpoint: Checkpoint) -> None:
        """Make a state of the run current, so that the next claim continues from it.

        The newest three are kept. A repeated call with the same state changes nothing.

        Args:
            claim: the claim on the job, of queue "distill".
            checkpoint: its files are in the store.
        """
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            if checkpoints.add(session, row, checkpoint):
                progress.log_checkpoint(session, row, checkpoint)

    def checkpoints(self, claim: Claim) -> list[Checkpoint]:
        """Read the states of the run from which a worker may continue, newest first."""
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            return checkpoints.read(session, row.id)

    def log_resume(self, claim: Claim, checkpoint: Checkpoint) -> None:
        """Report in the job's log that this claim continues from a checkpoint; once, if repeated."""
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            progress.log_resume(session, row, checkpoint)

    def fail(
        self,
        claim: Claim,
        code: ErrorCode | str,
        message: str,
        hint: str,
        retryable: bool = False,
        artifacts: Sequence[Artifact] = (),
    ) -> Job:
        """End the job as `failed`; it is not tried again."""
        error = endings.failure(code, message, hint, retryable=retryable)
        change = partial(endings.fail, error=error, artifacts=artifacts)
        return self._settle(claim, [JobStatus.FAILED], change)

    def cancel(self, claim: Claim) -> Job:
        """End the job as `cancelled`, after its child has been stopped."""
        return self._settle(claim, [JobStatus.CANCELLED], endings.cancel)

    def release(
        self, claim: Claim, counts_attempt: bool, reason: str, code: ErrorCode = ErrorCode.WORKER_LOST
    ) -> Job:
        """Give the job back: `running` becomes `queued`, `validating` stays, and the doorbell rings.

        If the client requested that, the job becomes `cancelled` or `paused` instead.

        Args:
            claim: the claim on the job.
            counts_attempt: False for a drain, which uses up no attempt; True for a crash, an out-of-memory
                kill or a hang: `attempt` rises, and past `max_attempts` the job fails with `code`.
            reason: the cause, as in "the process was killed by signal 9", for the client.
            code: `worker_lost`, or `disk_failed`.
        """
        change = partial(
            claims.hand_back,
            reason=reason,
            counts_attempt=counts_attempt,
            max_attempts=self._max_attempts,
            code=code,
        )
        outcomes = [WAITING_IN[claim.queue], JobStatus.PAUSED, JobStatus.CANCELLED, JobStatus.FAILED]
        return self._settle(claim, outcomes, change)

    def find_embedding(self, key: str) -> StoredFile | None:
        """Look up label-text embeddings by their cache key (sha256 over weights, prompt and labels)."""
        with self._database.transaction() as session:
            return caches.find_embedding(session, key)

    def save_embedding(self, key: str, file: StoredFile) -> StoredFile:
        """Save label-text embeddings for the next job with these labels; the first ones saved stay.

        Returns:
            The saved file, which may be another worker's with the same content.
        """
        with self._database.transaction() as session:
            caches.save_embedding(session, key, file)
            return caches.find_embedding(session, key) or file

    def use_bank(self, key: str) -> Bank | None:
        """Look up the warm-up under a key of `contract.banks`; its time of use is now."""
        with self._database.transaction() as session:
            return caches.use_bank(session, key)

    def set_bank(self, claim: Claim, bank: Bank) -> None:
        """Write into the job's `resolved` which bank its run begins with."""
        with self._database.transaction() as session:
            row = held_jobs.lock_claimed(session, claim)
            progress.set_bank(row, bank)

    def save_bank(self, claim: Claim, key: str, file: StoredFile) -> None:
        """Save a claimed job's warm-up for later jobs; the first one saved stays."""
        with self._database.transaction() as session:
            held_jobs.lock_claimed(session, claim)
            caches.save_bank(session, key, Bank(file, claim.job.id))

    def drop_bank(self, key: str, bank: Bank) -> None:
        """Drop a warm-up that the store has lost or damaged."""
        with self._database.transaction() as session:
            caches.drop_bank(session, key, bank.file.sha256)

    def _settle(
        self,
        claim: Claim,
        outcomes: Iterable[JobStatus],
        change: Callable[[Session, JobTable, datetime], None],
    ) -> Job:
        """End a claim with a change; a repeated call changes nothing more."""
        with self._database.transaction() as session:
            try:
                row = held_jobs.lock_claimed(session, claim)
            except LeaseLost:
                # Only now: the first call may have been committing while this one waited.
                earlier = held_jobs.find_settled(session, claim, outcomes)
                if earlier is None:
                    raise
                return earlier.as_job()
            change(session, row, repository.now(session))
            job = repository.save(session, row)
        self._resources.ring_for(job)
        return job
