"""What is done with a claimed job, one file for each queue, and what these share."""

from collections.abc import Mapping

from jobs.states import QueueName
from worker.claims.supervisor import Flow
from worker.flows.distill import distill
from worker.flows.inspect_uploads import validate

FLOWS: Mapping[QueueName, Flow] = {"inspect": validate, "distill": distill}
