"""How the work on a claimed job ends when it does not succeed.

Outcome
  Refused       the request cannot work: the job fails with a reason
  Crashed       the child crashed: the job is tried again, and an attempt is used
    DiskFailed  the disk of this machine can store no more: as Crashed, and the worker pauses
  Stopped       the client, the job's own limit or the worker's shutdown ended the work, or paused it

A lost claim is not among them: after `jobs.errors.LeaseLost` there is no job to bring to an end.
"""

from collections.abc import Sequence

from jobs.errors import LeaseLost
from jobs.values.files import Artifact
from nayer_core.contract.errors import ErrorCode, NayerError
from worker.claims.lease import StopReason


class Outcome(Exception):
    """An end other than success."""


class Refused(Outcome):
    """The request cannot work; the job's owner gets the reason.

    Args:
        code, message, hint, retryable: as in the core's `failed` line.
        artifacts: files that are published although the job fails; they are in the store.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        hint: str,
        *,
        retryable: bool = False,
        artifacts: Sequence[Artifact] = (),
    ):
        super().__init__(str(NayerError(code, message, hint)))
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.artifacts = artifacts


class Crashed(Outcome):
    """The child ended in a way that the contract does not define.

    Args:
        reason: for the log and the job's record.
        by_force: a signal, a limit or a time-out ended it, not its own exit code.
    """

    def __init__(self, reason: str, *, by_force: bool):
        super().__init__(reason)
        self.reason = reason
        self.by_force = by_force


class DiskFailed(Crashed):
    """The disk of this machine can store no more; the disk of another worker may have room.

    Args:
        reason: the problem of the disk, as in "is full".
    """

    def __init__(self, reason: str):
        super().__init__(reason, by_force=False)


class Stopped(Outcome):
    """The work was ended from outside, for any reason but a lost claim."""

    def __init__(self, reason: StopReason):
        super().__init__(reason.value)
        self.reason = reason


def stop_error(reason: StopReason) -> Stopped | LeaseLost:
    """Return the exception to raise if the work must stop."""
    if reason is StopReason.LOST:
        return LeaseLost("The job is no longer held by this worker.")
    return Stopped(reason)
