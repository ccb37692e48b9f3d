"""The work on a claimed job: one flow for each kind of job and each of its stages."""

from jobs.states import QueueName
from worker.claims.supervisor import Flow
from worker.flows.distill import distill
from worker.flows.inspect_uploads import prepare_distillation, validate

FLOWS: dict[tuple[str, QueueName], Flow] = {
    ("distill", "inspect"): prepare_distillation,
    ("distill", "distill"): distill,
    ("validate", "inspect"): validate,
}
