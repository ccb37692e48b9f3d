"""The worker's Celery application, with one method more."""

import sys
from pathlib import Path

from tests.support import noise_method  # noqa: F401 - adds its entry
from worker.celery_app import app
from worker.tasks import Process

__all__ = ["app"]

Process.program = (sys.executable, "-P", str(Path(__file__).with_name("core.py")))
