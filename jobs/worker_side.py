"""What a worker does with the job it holds; every write is checked against its fence."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from jobs import caches, checkpoints, journal, lifecycle, repository
from jobs.caches import Bank
from jobs.database import Database, Session
from jobs.queue import Doorbell
from jobs.recording import write_lines
from jobs.records import Artifact, Checkpoint, Claim, Control, Job, StoredFile, summarise
from jobs.ringing import ring_after_commit
from jobs.settings import Settings
from jobs.states import HELD_IN, JobStatus, QueueName
from jobs.tables import JobTable
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import Event

RESUMED_LINE = 0  # what children print is counted from 1


class WorkerSide:
    """The half of `JobService` that workers use.

    Every method that takes a `Claim`, but `heartbeat`, raises `LeaseLost` when the claim is no longer
    held. A call that raised `ServiceUnavailable` may be repeated: it has one effect however often it
    comes through.
    """

    database: Database
    doorbell: Doorbell
    settings: Settings

    def claim(self, queue: QueueName, worker: str, *, repeated: bool = False) -> Claim | None:
        """Take the best waiting job of a queue, or None when there is nothing to do.

        Dry runs come first (a person waits for the answer), then the oldest. In queue "distill" the
        job becomes `running`; in queue "inspect" it stays `validating` through `inspect` and `embed`.

        Args:
            queue: whose jobs are looked at.
            worker: a name for the operator, as in "host:pid:7"; no other call has it.
            repeated: whether a call with this name raised `ServiceUnavailable`: the job it took, if it
                took one, is given again, which would else lie under a lease that nobody knows of.
        """
        with self.database.transaction() as session:
            taken = repository.find_taken(session, queue, worker) if repeated else None
            if taken is not None:
                return Claim(taken.as_job(), taken.fence, queue)
            row = repository.take_waiting(session, queue)
            if row is None:
                return None
            now = repository.now(session)
            row.fence += 1
            row.version += 1
            row.lease_until = now + timedelta(seconds=self.settings.lease_seconds)
            row.claimed_at = now
            row.worker = worker
            row.started_at = row.started_at or now
            if HELD_IN[queue] != row.status:
                lifecycle.move(session, row, HELD_IN[queue])
            return Claim(repository.written(session, row), row.fence, queue)

    def heartbeat(self, claim: Claim) -> Control:
        """Renew the lease and hear what is wanted; cheap enough for once a second."""
        with self.database.transaction() as session:
            return repository.renew_lease(session, claim, timedelta(seconds=self.settings.lease_seconds))

    def record(self, claim: Claim, lines: Sequence[tuple[int, Event]]) -> None:
        """Write what a child printed: events, metrics, progress, phase and timeline.

        Of the progress records of one phase only the newest of this call is kept. `finished`, `failed`
        and `stopped` are not written: they come through `validated`, `succeed`, `fail` and `release`.

        Args:
            claim: the job's.
            lines: (number of the line, event). Numbers rise through the whole claim, over all of its
                children (`inspect` then `embed`), and never repeat: a number that was written before
                under this fence is skipped, which makes a repeated call harmless.
        """
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            write_lines(session, row, lines, repository.now(session))

    def add_artifact(self, claim: Claim, artifact: Artifact) -> None:
        """Publish a stored file under its name, in place of an older one of that name."""
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            lifecycle.add_artifacts(session, row, [artifact], repository.now(session))

    def validated(
        self,
        claim: Claim,
        resolved: Mapping[str, object],
        report: Mapping[str, object],
        inputs: Mapping[str, StoredFile],
    ) -> Job:
        """End the inspection: the job becomes `queued` and `distill` is rung; a dry run has `succeeded`.

        The uploads are let go: from here on only the canonical files are read. A job whose end was
        asked for meanwhile is `cancelled`.

        Args:
            claim: the job's, of queue "inspect".
            resolved: the `ResolvedSpec` document.
            report: what was found in the files.
            inputs: the canonical files by name: teacher.safetensors, spec.json, lte.safetensors and
                evaluation.safetensors where given.
        """

        def change(session: Session, row: JobTable, now: datetime) -> None:
            row.resolved, row.report = dict(resolved), dict(report)
            row.summary = summarise(row.spec, resolved)
            if row.cancel_requested:  # since the last heartbeat; no worker would ever take it again
                lifecycle.finish(session, row, JobStatus.CANCELLED, now)
                return
            for name, stored in inputs.items():
                lifecycle.put_file(row, "input", name, stored, now)
            if row.dry_run:
                lifecycle.finish(session, row, JobStatus.SUCCEEDED, now)
                return
            lifecycle.close_phase(row, now)
            lifecycle.drop_lease(row, now)
            lifecycle.let_uploads_go(row)
            row.rung_at = now
            lifecycle.move(session, row, JobStatus.QUEUED)

        return self._settle(claim, [JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.CANCELLED], change)

    def inputs(self, claim: Claim) -> dict[str, StoredFile]:
        """Read the canonical files of the job by name, as `validated` was given them."""
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            return {file.name: file.as_stored() for file in row.files if file.kind == "input"}

    def checkpointed(self, claim: Claim, checkpoint: Checkpoint) -> None:
        """Make a state of the run current: what the next claim goes on from.

        The newest three are kept and the rest is let go. A state of this claim's that is there already,
        at the same step, makes the call harmless.

        Args:
            claim: the job's, of queue "distill".
            checkpoint: its files lie in the store.
        """
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            if checkpoints.add(session, row, checkpoint):
                journal.append(session, row, "checkpoint", checkpoints.told(checkpoint))

    def checkpoints(self, claim: Claim) -> list[Checkpoint]:
        """Read the states of the run that a worker may go on from, newest first."""
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            return checkpoints.read(session, row.id)

    def resumed(self, claim: Claim, checkpoint: Checkpoint) -> None:
        """Tell in the job's log that this claim goes on from a checkpoint; told once a claim."""
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            if not journal.lines_written(session, row, [RESUMED_LINE]):
                told = {**checkpoints.told(checkpoint), "resumed": True}
                journal.append(session, row, "checkpoint", told, RESUMED_LINE)

    def succeed(self, claim: Claim, artifacts: Sequence[Artifact], metrics: Mapping[str, float]) -> Job:
        """End the job as `succeeded`, with its artifacts and last metrics, in one transaction."""

        def change(session: Session, row: JobTable, now: datetime) -> None:
            lifecycle.add_artifacts(session, row, artifacts, now)
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            row.latest_metrics = {**row.latest_metrics, **finite}
            if row.progress:
                row.progress = {**row.progress, "fraction": 1.0, "eta_seconds": 0.0}
            lifecycle.finish(session, row, JobStatus.SUCCEEDED, now)

        return self._settle(claim, [JobStatus.SUCCEEDED], change)

    def fail(
        self,
        claim: Claim,
        code: ErrorCode | str,
        message: str,
        hint: str,
        retryable: bool = False,
        artifacts: Sequence[Artifact] = (),
    ) -> Job:
        """End the job as `failed`: it cannot work, and is not tried again."""
        error = lifecycle.problem(code, message, hint, retryable=retryable)

        def change(session: Session, row: JobTable, now: datetime) -> None:
            lifecycle.add_artifacts(session, row, artifacts, now)
            lifecycle.finish(session, row, JobStatus.FAILED, now, error)

        return self._settle(claim, [JobStatus.FAILED], change)

    def cancelled(self, claim: Claim) -> Job:
        """End the job as `cancelled`, after its child has been stopped."""

        def change(session: Session, row: JobTable, now: datetime) -> None:
            lifecycle.finish(session, row, JobStatus.CANCELLED, now)

        return self._settle(claim, [JobStatus.CANCELLED], change)

    def release(
        self, claim: Claim, counts_attempt: bool, reason: str, code: ErrorCode = ErrorCode.WORKER_LOST
    ) -> Job:
        """Give the job back: `running` becomes `queued`, `validating` stays, and its queue is rung.

        A job whose end was asked for is `cancelled` instead, one that shall rest is `paused`.

        Args:
            claim: the job's.
            counts_attempt: False for a drain, which costs nothing; True for a crash, an out-of-memory
                kill or a hang: `attempt` rises, and past `max_attempts` the job is failed with `code`.
            reason: how it came to this, as in "the process was killed by signal 9"; told to the client.
            code: `worker_lost`, or `disk_failed`.
        """

        def change(session: Session, row: JobTable, now: datetime) -> None:
            attempts = self.settings.max_attempts
            lifecycle.hand_back(
                session, row, now, reason, counts_attempt=counts_attempt, max_attempts=attempts, code=code
            )

        waiting = JobStatus.QUEUED if claim.queue == "distill" else JobStatus.VALIDATING
        outcomes = [waiting, JobStatus.PAUSED, JobStatus.CANCELLED, JobStatus.FAILED]
        return self._settle(claim, outcomes, change)

    def find_embedding(self, key: str) -> StoredFile | None:
        """Look up label-text embeddings by their cache key (sha256 over weights, prompt and labels)."""
        with self.database.transaction() as session:
            return caches.find_embedding(session, key)

    def save_embedding(self, key: str, stored: StoredFile) -> StoredFile:
        """Keep label-text embeddings for the next job with these labels; the first one saved stays.

        Returns:
            The file that is kept, which may be another worker's with the same content.
        """
        with self.database.transaction() as session:
            caches.save_embedding(session, key, stored)
            return caches.find_embedding(session, key) or stored

    def use_bank(self, key: str) -> Bank | None:
        """Look up the warm-up kept under a key of `contract.banks`; its time of use is now."""
        with self.database.transaction() as session:
            return caches.use_bank(session, key)

    def bank_taken(self, claim: Claim, bank: Bank) -> None:
        """Say in the job's `resolved` which bank its run begins with."""
        with self.database.transaction() as session:
            row = repository.lock_claimed(session, claim)
            told = {"sha256": bank.file.sha256, "job": bank.job_id}
            row.resolved = {**(row.resolved or {}), "bank": told}
            row.version += 1

    def save_bank(self, claim: Claim, key: str, stored: StoredFile) -> None:
        """Keep a claimed job's warm-up for later jobs; the first one saved stays."""
        with self.database.transaction() as session:
            repository.lock_claimed(session, claim)
            caches.save_bank(session, key, Bank(stored, claim.job.id))

    def drop_bank(self, key: str, bank: Bank) -> None:
        """Forget a warm-up that the store has lost or damaged."""
        with self.database.transaction() as session:
            caches.drop_bank(session, key, bank.file.sha256)

    def _settle(
        self,
        claim: Claim,
        outcomes: Iterable[JobStatus],
        change: Callable[[Session, JobTable, datetime], None],
    ) -> Job:
        """End a claim with a change; once it was ended so, a repeated call changes nothing more."""
        with self.database.transaction() as session:
            settled = repository.find_settled(session, claim, outcomes)
            if settled is not None:
                return settled.as_job()
            row = repository.lock_claimed(session, claim)
            change(session, row, repository.now(session))
            job = repository.written(session, row)
        ring_after_commit(self.database, self.doorbell, job)
        return job
