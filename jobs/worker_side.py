"""What a worker does with the job it holds; every write is checked against its fence."""

from collections.abc import Mapping, Sequence

from jobs.database import Database
from jobs.queue import Doorbell
from jobs.records import Artifact, Claim, Control, Job, StoredFile
from jobs.settings import Settings
from jobs.states import QueueName
from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.events import Event


class WorkerSide:
    """The half of `JobService` that workers use.

    Every method that takes a `Claim`, but `heartbeat`, raises `LeaseLost` when the claim is no longer
    held. A call that raised `ServiceUnavailable` may be repeated: it has one effect however often it
    comes through.
    """

    database: Database
    doorbell: Doorbell
    settings: Settings

    def claim(self, queue: QueueName, worker: str) -> Claim | None:
        """Take the best waiting job of a queue, or None when there is nothing to do.

        Dry runs come first (a person waits for the answer), then the oldest. In queue "distill" the
        job becomes `running`; in queue "inspect" it stays `validating` through `inspect` and `embed`.

        Args:
            worker: a name for the log of the operator, as in "host:pid".
        """
        raise NotImplementedError

    def heartbeat(self, claim: Claim) -> Control:
        """Renew the lease and hear what is wanted; cheap enough for once a second."""
        raise NotImplementedError

    def record(self, claim: Claim, lines: Sequence[tuple[int, Event]]) -> None:
        """Write what a child printed: events, metrics, progress, phase and timeline.

        Of consecutive progress records only the newest of this call is kept. `finished`, `failed` and
        `stopped` are not written: they come through `validated`, `succeed`, `fail` and `release`.

        Args:
            lines: (number of the line, event). Numbers rise through the whole claim, over all of its
                children (`inspect` then `embed`), and never repeat: a number that was written before
                under this fence is skipped, which makes a repeated call harmless.
        """
        raise NotImplementedError

    def add_artifact(self, claim: Claim, artifact: Artifact) -> None:
        """Publish a stored file under its name, in place of an older one of that name."""
        raise NotImplementedError

    def validated(
        self,
        claim: Claim,
        resolved: Mapping[str, object],
        report: Mapping[str, object],
        inputs: Mapping[str, StoredFile],
    ) -> Job:
        """End the inspection: the job becomes `queued` and `distill` is rung; a dry run has `succeeded`.

        Args:
            resolved: the `ResolvedSpec` document.
            report: what was found in the files.
            inputs: the canonical files by name: teacher.safetensors, spec.json, lte.safetensors and
                evaluation.safetensors where given.
        """
        raise NotImplementedError

    def inputs(self, claim: Claim) -> dict[str, StoredFile]:
        """Read the canonical files of the job by name, as `validated` was given them."""
        raise NotImplementedError

    def succeed(self, claim: Claim, artifacts: Sequence[Artifact], metrics: Mapping[str, float]) -> Job:
        """End the job as `succeeded`, with its artifacts and last metrics, in one transaction."""
        raise NotImplementedError

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
        raise NotImplementedError

    def cancelled(self, claim: Claim) -> Job:
        """End the job as `cancelled`, after its child has been stopped."""
        raise NotImplementedError

    def release(self, claim: Claim, counts_attempt: bool, reason: str) -> Job:
        """Give the job back: `running` becomes `queued`, `validating` stays, and its queue is rung.

        A job whose end was asked for is `cancelled` instead.

        Args:
            counts_attempt: False for a drain, which costs nothing; True for a crash, an out-of-memory
                kill or a hang: `attempt` rises, and past `max_attempts` the job is `failed(worker_lost)`.
            reason: how it came to this, as in "the process was killed by signal 9"; told to the client.
        """
        raise NotImplementedError

    def find_embedding(self, key: str) -> StoredFile | None:
        """Look up label-text embeddings by their cache key (sha256 over weights, prompt and labels)."""
        raise NotImplementedError

    def save_embedding(self, key: str, stored: StoredFile) -> StoredFile:
        """Keep label-text embeddings for the next job with these labels; the first one saved stays.

        Returns:
            The file that is kept, which may be another worker's with the same content.
        """
        raise NotImplementedError
