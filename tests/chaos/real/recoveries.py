"""The time from a fault to the next step of a job, read from its log by the database's clock.

From a fault that takes a job away from its holder to the first step of the next holder;
from the end of an outage of a server to the next step of any worker.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text

from tests.support.services import Services

# For a job that had done all its steps, the end counts as the next step.
STEPPED = """
SELECT extract(epoch FROM min(event.created_at)) FROM event JOIN job ON job.id = event.job_id
WHERE job.id = :id AND job.fence > :fence AND event.created_at > to_timestamp(:since)
AND (event.type = 'metrics' AND event.fence > :fence
     OR event.type = 'status' AND event.data ->> 'status' = 'succeeded')
"""
CLAIMED = """
SELECT extract(epoch FROM min(created_at)) FROM event
WHERE job_id = :id AND type = 'status' AND data ->> 'status' = 'running' AND created_at > to_timestamp(:since)
"""


@dataclass(frozen=True)
class Fault:
    """A fault that struck a running job.

    Args:
        what: the fault in words.
        since: when the job could begin to recover, in seconds of the epoch.
        fence: that of the claim it was taken from; None where its holder may have kept it.
    """

    what: str
    job_id: str
    since: float
    fence: int | None

    def recovery(self, service: Services) -> "Recovery | None":
        """The recovery from this fault; None where the job has made no later step."""
        parameters = {
            "id": self.job_id,
            "fence": -1 if self.fence is None else self.fence,
            "since": self.since,
        }
        with service.resources.database.transaction() as session:
            stepped = session.execute(text(STEPPED), parameters).scalar()
            claimed = session.execute(text(CLAIMED), parameters).scalar() if self.fence is not None else None
        if stepped is None:
            return None
        until_claimed = None if claimed is None else round(float(claimed) - self.since, 2)
        return Recovery(self.what, round(float(stepped) - self.since, 2), until_claimed)


@dataclass(frozen=True)
class Recovery:
    """The recovery of a job.

    Args:
        seconds: from the fault to the next step that was written.
        claimed: seconds from the fault until a worker held the job again.
    """

    what: str
    seconds: float
    claimed: float | None

    def row(self) -> dict[str, Any]:
        return asdict(self)
