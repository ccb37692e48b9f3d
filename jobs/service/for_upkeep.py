"""What keeps jobs moving when something was lost; any number of upkeeps may run at once.

ring_again   a message was lost: ring for what waits
reap         a worker was lost: give its job to another
expire       a job used up max_runtime_seconds: end it
retain       what ended jobs leave behind was kept long enough: let it go
sweep        files that no row names: remove them
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice

from jobs.files.store import Storage
from jobs.rows import held_jobs, repository, retention, waiting_jobs
from jobs.service.resources import Resources
from jobs.service.transitions import claims, endings
from jobs.states import WAITING_IN
from nayer_core.contract.errors import ErrorCode

# How much one transaction takes on.
BATCH = 100
KEYS_AT_ONCE = 1000

SILENCE = "its worker fell silent for longer than the lease"


@dataclass(frozen=True)
class SweepReport:
    """What a sweep of the store found.

    Args:
        removed: keys of files that no row named, now gone.
        missing: keys that a row names and that the store does not hold; always a reason to look.
        abandoned: halves of files left by killed writers, now gone.
    """

    removed: list[str]
    missing: list[str]
    abandoned: int


class UpkeepJobs:
    """Jobs, as upkeep sees them. Works in bounded transactions; doorbells ring after their commit.

    A method may raise `ServiceUnavailable`; what it did before is committed, and it may be called again.
    """

    def __init__(self, resources: Resources):
        self._resources = resources
        self._database = resources.database
        self._settings = resources.settings

    def ring_again(self) -> int:
        """Ring for waiting jobs that were not rung for in `ring_again_seconds`; returns how often it rang.

        A message that still lies in its queue stands for one job, whichever: while workers are busy for
        hours, no more messages lie there than jobs wait.
        """
        silent_for = timedelta(seconds=self._settings.ring_again_seconds)
        rung = 0
        for queue in WAITING_IN:
            pending = self._resources.doorbell.pending(queue)
            if pending is None:
                return rung
            with self._database.transaction() as session:
                wanted = max(0, waiting_jobs.count(session, queue) - pending)
                job_ids = waiting_jobs.mark_rung(session, queue, silent_for, BATCH)
            for done, job_id in enumerate(job_ids[:wanted]):
                if not self._resources.doorbell.ring(queue, job_id):
                    with self._database.transaction() as session:
                        waiting_jobs.mark_not_rung(session, job_ids[done:])
                    return rung
                rung += 1
        return rung

    def reap(self) -> int:
        """Take jobs from workers that fell silent; returns how many.

        Each waits again with one attempt used up, or is `failed(worker_lost)` when none is left, or
        `cancelled` when that was asked for.
        """
        with self._database.transaction() as session:
            now = repository.now(session)
            rows = held_jobs.lock_lost(session, BATCH)
            attempts = self._settings.max_attempts
            for row in rows:
                claims.hand_back(
                    session, row, now, reason=SILENCE, counts_attempt=True, max_attempts=attempts
                )
            jobs = [repository.written(session, row) for row in rows]
        for job in jobs:
            self._resources.ring_for(job)
        return len(jobs)

    def expire(self) -> int:
        """End jobs that used up `max_runtime_seconds`; returns how many.

        Their workers see to it themselves (`Control.remaining_seconds`); here end those that wait for a
        worker, and those whose worker did not.
        """
        with self._database.transaction() as session:
            now = repository.now(session)
            rows = held_jobs.lock_overdue(session, self._settings.lease_seconds, BATCH)
            for row in rows:
                message = f"The job ran for longer than max_runtime_seconds = {row.max_runtime_seconds}."
                hint = "Allow more time, or ask for fewer epochs."
                error = endings.failure(ErrorCode.MAX_RUNTIME_EXCEEDED, message, hint)
                endings.fail(session, row, now, error)
        return len(rows)

    def retain(self) -> int:
        """Let go what was kept for its time after the end of its job, old embeddings and
        unused banks; returns how much.

        Files leave the store with the sweep that follows. A time that is changed counts for jobs that
        have ended already, too.
        """
        settings = self._settings
        duties = (
            (partial(retention.let_files_go, kind="upload"), settings.keep_uploads_seconds),
            (partial(retention.let_files_go, kind="input"), settings.keep_inputs_seconds),
            (partial(retention.let_files_go, kind="artifact"), settings.keep_artifacts_seconds),
            (retention.let_checkpoints_go, settings.keep_checkpoints_seconds),
            (retention.delete_jobs, settings.keep_jobs_seconds),
            (retention.drop_embeddings, settings.keep_embeddings_seconds),
            (retention.drop_banks, settings.keep_banks_seconds),
        )
        done = 0
        for let_go, seconds in duties:
            batch = 1
            # Until nothing is left: a batch that others took a part of is no sign of the end.
            while seconds is not None and batch:
                with self._database.transaction() as session:
                    batch = let_go(session, keep=timedelta(seconds=seconds), limit=BATCH)
                done += batch
        return done

    def sweep(self, storage: Storage, grace_seconds: float | None = None) -> SweepReport:
        """Make rows and files agree: remove what no row names, report what a row names and is not there.

        What was kept for its time is let go first.

        Args:
            grace_seconds: a file younger than this may belong to a row that is about to be written;
                `sweep_grace_seconds` by default. Ages are told by the store's own clock.
        """
        grace = timedelta(
            seconds=self._settings.sweep_grace_seconds if grace_seconds is None else grace_seconds
        )
        self.retain()
        before = storage.now() - grace
        seen: set[str] = set()
        removed: list[str] = []
        found = iter(storage.list())
        while page := list(islice(found, KEYS_AT_ONCE)):
            seen.update(entry.key for entry in page)
            old = [entry.key for entry in page if entry.modified_at < before]
            with self._database.transaction() as session:
                named = repository.kept_keys(session, old)
            for key in old:
                if key not in named:
                    storage.delete(key)
                    removed.append(key)
        return SweepReport(removed, self._missing_keys(storage, seen), storage.remove_abandoned(before))

    def _missing_keys(self, storage: Storage, listed: Set[str]) -> list[str]:
        with self._database.transaction() as session:
            named = repository.kept_keys(session)
        # A file that came while the list was read is not in it, but in the store.
        absent = [key for key in named - listed if not storage.exists(key)]
        with self._database.transaction() as session:
            # The row that named it may be gone since: another upkeep let it go and removed its file.
            return sorted(repository.kept_keys(session, absent))
