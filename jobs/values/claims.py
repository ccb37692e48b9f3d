"""A worker's claim on a job, the client's requests to it, and the results of its work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.states import QueueName
from jobs.values.files import Artifact, StoredFile
from jobs.values.jobs import Job


@dataclass(frozen=True)
class Claim:
    """The right of one worker to one job, valid as long as no other claim has a higher fence."""

    job: Job
    fence: int
    queue: QueueName


@dataclass(frozen=True)
class Control:
    """The answer to a heartbeat.

    Args:
        lost: the claim is no longer held: kill the child and write nothing more.
        cancel_requested: the client wants the job to end.
        pause_requested: the client wants the job to pause, with its state kept.
        remaining_seconds: the rest of `max_runtime_seconds`, zero or below when it is used up; None
            without a limit.
    """

    lost: bool
    cancel_requested: bool
    pause_requested: bool
    remaining_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The results of a successful stage of a job. Its files are in the store.

    Args:
        resolved: the `ResolvedSpec` document; None keeps that of an earlier stage.
        report: the report on the uploads; None keeps that of an earlier stage.
        inputs: canonical files by name. A later stage reads these, and no upload.
        artifacts: files to publish.
        metrics: the last values of the job's metrics.
        quality: how good the student is (`Job.quality`); None leaves the job without one.
    """

    resolved: Mapping[str, object] | None = None
    report: Mapping[str, object] | None = None
    inputs: Mapping[str, StoredFile] = field(default_factory=dict)
    artifacts: Sequence[Artifact] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, object] | None = None
