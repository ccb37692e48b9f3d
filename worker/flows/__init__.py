"""What is done with a claimed job, one file for each queue, and what these files share."""

from collections.abc import Mapping

from jobs.states import QueueName
from worker.claims.supervisor import Flow
from worker.flows.distill import distill
from worker.flows.inspect_uploads import inspect_uploads

FLOWS: Mapping[QueueName, Flow] = {"inspect": inspect_uploads, "distill": distill}
