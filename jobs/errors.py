"""The errors of operations on jobs. Each has a stable code; only the outermost layers translate it.

JobsError
  JobNotFound          there is no such job
  JobNotTerminal       the job must have ended first
  JobNotPausable       only a job that waits for distillation, or runs, can be paused
  JobNotPaused         only a paused job can be resumed
  IdempotencyConflict  the key was used for another request
  DeliveryNotFound     the job has no such message to its web hook
  ArtifactNotFound     no artifact has this name
  ArtifactNotReady     the job has not ended, and may still produce the artifact
  ArtifactExpired      the time for which the artifact was kept is over
  FileTooLarge         a body exceeded its limit while it was streamed
  FileCorrupt          stored bytes do not have the hash in their row
  FileMissing          the store holds no such file
  LeaseLost            another worker has the job, or it has ended: write nothing more
  ServiceUnavailable   database, broker or store does not answer; try again
    StorageFull        the store has no room for more
"""

from typing import ClassVar


class JobsError(Exception):
    """An operation on a job failed.

    Args:
        message: what is wrong, with the value and the limit.
        hint: what to do about it; one sentence.
    """

    code: ClassVar[str] = "jobs_error"

    def __init__(self, message: str, hint: str = ""):
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class JobNotFound(JobsError):
    """There is no job with this id, or it has been deleted."""

    code = "job_not_found"


class JobNotTerminal(JobsError):
    """This operation needs a job that has ended."""

    code = "job_not_terminal"


class JobNotPausable(JobsError):
    """Only a job that waits for distillation, or runs, can be paused."""

    code = "job_not_pausable"


class JobNotPaused(JobsError):
    """Only a paused job can be resumed."""

    code = "job_not_paused"


class IdempotencyConflict(JobsError):
    """The Idempotency-Key was used before, for a request that differs."""

    code = "idempotency_key_reused"


class DeliveryNotFound(JobsError):
    """The job has no message to its web hook with this id."""

    code = "delivery_not_found"


class ArtifactNotFound(JobsError):
    """The job has no artifact of this name and will not get one."""

    code = "artifact_not_found"


class ArtifactNotReady(JobsError):
    """The job has no artifact of this name yet; it has not ended."""

    code = "artifact_not_ready"


class ArtifactExpired(JobsError):
    """The job had this artifact, but the time for which this service keeps artifacts is over."""

    code = "artifact_expired"


class FileTooLarge(JobsError):
    """A body exceeded its limit while it was being streamed; nothing of it was kept.

    Args:
        limit_bytes: the limit that was exceeded.
    """

    code = "file_too_large"

    def __init__(self, limit_bytes: int):
        super().__init__(f"The file is larger than the limit of {limit_bytes} bytes.", "Send a smaller file.")
        self.limit_bytes = limit_bytes


class FileCorrupt(JobsError):
    """The bytes in the store do not have the length and hash in their row."""

    code = "file_corrupt"


class FileMissing(JobsError):
    """The store holds no file under this key."""

    code = "file_missing"


class LeaseLost(JobsError):
    """The claim is no longer held: another worker has the job, or it has ended."""

    code = "lease_lost"


class ServiceUnavailable(JobsError):
    """The database, the broker or the object store does not answer.

    Args:
        part: "database", "broker" or "storage".
        reason: the kind of failure, never with addresses or credentials.
    """

    code = "service_unavailable"

    def __init__(self, part: str, reason: str):
        super().__init__(f"The {part} does not answer ({reason}).", "Nothing is lost; try again in a moment.")
        self.part = part


class StorageFull(ServiceUnavailable):
    """The disk under the store is full, or its quota is used up; reading still works."""

    code = "storage_full"

    def __init__(self) -> None:
        message = "The storage has no room left for a file."
        JobsError.__init__(self, message, "Nothing is lost; try again when the operator has made room.")
        self.part = "storage"
