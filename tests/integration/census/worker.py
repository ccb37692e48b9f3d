"""The worker's Celery application, with flows for one kind of job more."""

from tests.support.census_kind import CENSUS, count
from worker.celery_app import app
from worker.flows import FLOWS
from worker.flows.inspect_uploads import prepare_distillation

__all__ = ["app"]

FLOWS |= {(CENSUS.name, "inspect"): prepare_distillation, (CENSUS.name, "distill"): count}
