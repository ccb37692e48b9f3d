"""How an attempt ends when it does not end well.

Outcome
  Refused   the request cannot work: the job fails with a reason
  Crashed   the child broke down: the job is tried again, and an attempt is used
    DiskFailed  this machine's disk took no more: the same, after which the worker rests
  Stopped   somebody wanted the end, or a rest: the client, its own limit, or this worker going home
"""

from collections.abc import Sequence

from jobs.values import Artifact
from nayer_core.contract.errors import ErrorCode, NayerError
from worker.claims.lease import StopReason


class Outcome(Exception):
    """An end other than success."""


class Refused(Outcome):
    """The request cannot work; its owner is told why.

    Args:
        code, message, hint, retryable: as in the core's `failed` line.
        artifacts: what is published of the work in spite of that; it lies in the store.
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
    """The child ended in a way the contract does not know.

    Args:
        reason: for the log and the job's record.
        by_force: a signal, a limit or a time-out ended it, not its own exit code.
    """

    def __init__(self, reason: str, *, by_force: bool):
        super().__init__(reason)
        self.reason = reason
        self.by_force = by_force


class DiskFailed(Crashed):
    """The disk of this machine takes no more; another worker's may.

    Args:
        reason: what it is, as in "is full".
    """

    def __init__(self, reason: str):
        super().__init__(reason, by_force=False)


class Stopped(Outcome):
    """The work was ended from outside."""

    def __init__(self, reason: StopReason):
        super().__init__(reason.value)
        self.reason = reason
