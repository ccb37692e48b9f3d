"""The worker's Celery application, with the program of `core.py` as the core."""

import sys
from pathlib import Path

from worker.celery_app import app
from worker.tasks import Process

__all__ = ["app"]

Process.program = (sys.executable, "-P", str(Path(__file__).with_name("core.py")))
