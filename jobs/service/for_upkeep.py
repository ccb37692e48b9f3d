"""Upkeep's operations, which keep jobs moving after a loss. Any number of upkeeps may run at once.

ring_again   ring for jobs that wait, in case a message was lost
reap         give the jobs of lost workers to others
expire       end jobs that used up max_runtime_seconds
retain       release data whose time after the end of its job is over
sweep        remove files that no row names
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

# How many rows one transaction changes.
BATCH = 100
KEYS_AT_ONCE = 1000

SILENCE = "its worker fell silent for longer than the lease"


@dataclass(frozen=True)
class SweepReport:
    """The result of a sweep of the store.

    Args:
        removed_keys: files that no row named, now removed.
        missing_keys: files that a row names and that the store does not have; always a reason to look.
        partial_files: how many files of killed writers were removed.
    """

    removed_keys: list[str]
    missing_keys: list[str]
    partial_files: int


class UpkeepJobs:
    """Upkeep's operations on jobs, in bounded transactions; doorbells ring after their commit.

    A method may raise `ServiceUnavailable`; its earlier changes are committed, and it may be called again.
    """

    def __init__(self, resources: Resources):
        self._resources = resources
        self._database = resources.database
        self._settings = resources.settings

    def ring_again(self) -> int:
        """Ring for waiting jobs without a ring in `ring_again_seconds`; returns the number of rings.

        Each message that is still in a queue counts as the ring of some job. So a queue never has more
        messages than jobs, even if workers are busy for hours.
        """
        silent_for = timedelta(seconds=self._settings.ring_again_seconds)
        rings = 0
        for queue in WAITING_IN:
            pending = self._resources.doorbell.pending(queue)
            if pending is None:
                return rings
            with self._database.transaction() as session:
                missing = max(0, waiting_jobs.count(session, queue) - pending)
                job_ids = waiting_jobs.mark_rung(session, queue, silent_for, BATCH)
            for index, job_id in enumerate(job_ids[:missing]):
                if not self._resources.doorbell.ring(queue, job_id):
                    with self._database.transaction() as session:
                        waiting_jobs.mark_not_rung(session, job_ids[index:])
                    return rings
                rings += 1
        return rings

    def reap(self) -> int:
        """Take jobs from workers that fell silent; returns how many.

        Each waits again with one attempt used up. It fails with `worker_lost` when no attempt is left,
        and is cancelled or paused where that was requested.
        """
        with self._database.transaction() as session:
            now = repository.now(session)
            rows = held_jobs.lock_lost(session, BATCH)
            attempts = self._settings.max_attempts
            for row in rows:
                claims.hand_back(
                    session, row, now, reason=SILENCE, counts_attempt=True, max_attempts=attempts
                )
            jobs = [repository.save(session, row) for row in rows]
        for job in jobs:
            self._resources.ring_for(job)
        return len(jobs)

    def expire(self) -> int:
        """End jobs that used up `max_runtime_seconds`; returns how many.

        Workers end their own jobs (`Control.remaining_seconds`). This ends jobs that wait for a worker,
        and those whose worker did not end them.
        """
        with self._database.transaction() as session:
            now = repository.now(session)
            rows = held_jobs.lock_overdue(session, self._settings.lease_seconds, BATCH)
            for row in rows:
                message = f"The job ran for longer than max_runtime_seconds = {row.max_runtime_seconds}."
                hint = "Raise max_runtime_seconds, or request fewer epochs."
                error = endings.failure(ErrorCode.MAX_RUNTIME_EXCEEDED, message, hint)
                endings.fail(session, row, now, error)
        return len(rows)

    def retain(self) -> int:
        """Release data whose time after the end of its job is over, old embeddings and unused banks.

        The next sweep removes the files from the store. A changed setting also applies to jobs that have
        ended already.

        Returns:
            How many jobs, embeddings and banks were affected, once for each setting.
        """
        settings = self._settings
        duties = (
            (partial(retention.release_files, kind="upload"), settings.keep_uploads_seconds),
            (partial(retention.release_files, kind="input"), settings.keep_inputs_seconds),
            (partial(retention.release_files, kind="artifact"), settings.keep_artifacts_seconds),
            (retention.delete_checkpoints, settings.keep_checkpoints_seconds),
            (retention.delete_jobs, settings.keep_jobs_seconds),
            (retention.drop_embeddings, settings.keep_embeddings_seconds),
            (retention.drop_banks, settings.keep_banks_seconds),
        )
        total = 0
        for drop, seconds in duties:
            batch = 1
            # Until a batch is empty: other upkeeps can make a batch shorter.
            while seconds is not None and batch:
                with self._database.transaction() as session:
                    batch = drop(session, keep=timedelta(seconds=seconds), limit=BATCH)
                total += batch
        return total

    def sweep(self, storage: Storage, grace_seconds: float | None = None) -> SweepReport:
        """Make rows and files agree: remove files that no row names, report rows whose file is missing.

        Calls `retain` first.

        Args:
            grace_seconds: a file younger than this may belong to a row that is about to be written;
                `sweep_grace_seconds` by default. Ages are those of the store's own clock.
        """
        grace = timedelta(
            seconds=self._settings.sweep_grace_seconds if grace_seconds is None else grace_seconds
        )
        self.retain()
        before = storage.now() - grace
        listed_keys: set[str] = set()
        removed_keys: list[str] = []
        entries = iter(storage.list())
        while page := list(islice(entries, KEYS_AT_ONCE)):
            listed_keys.update(entry.key for entry in page)
            old = [entry.key for entry in page if entry.modified_at < before]
            with self._database.transaction() as session:
                kept_keys = repository.kept_keys(session, old)
            for key in old:
                if key not in kept_keys:
                    storage.delete(key)
                    removed_keys.append(key)
        missing_keys = self._missing_keys(storage, listed_keys)
        return SweepReport(removed_keys, missing_keys, storage.remove_partial_files(before))

    def _missing_keys(self, storage: Storage, listed_keys: Set[str]) -> list[str]:
        with self._database.transaction() as session:
            kept_keys = repository.kept_keys(session)
        # A file that was stored while the list was read is not in it, but in the store.
        absent = [key for key in kept_keys - listed_keys if not storage.exists(key)]
        with self._database.transaction() as session:
            # Another upkeep may have dropped the row since, and removed its file.
            return sorted(repository.kept_keys(session, absent))
