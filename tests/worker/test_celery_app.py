import json
import os
import subprocess
import sys

import pytest

from jobs.settings import Settings
from worker.celery_app import create_celery

SETTINGS = Settings(
    database_url="postgresql://nobody@127.0.0.1:1/none",
    redis_url="redis://127.0.0.1:1/0",
    storage_url="file:///nowhere",
)


def test_importing_the_tasks_needs_no_environment_and_no_torch() -> None:
    program = (
        "import json, sys, worker.tasks; "
        "names = {'torch', 'fastapi', 'nayer_core.methods.nayer.algorithm'}; "
        "print(json.dumps(sorted(names & set(sys.modules))))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAYER_")}
    process = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_url", SETTINGS.redis_url),
        ("task_acks_late", False),
        ("worker_disable_prefetch", True),
        ("worker_prefetch_multiplier", 1),
        ("result_backend", None),
        ("task_ignore_result", True),
        ("task_serializer", "json"),
        ("accept_content", ["json"]),
        ("worker_cancel_long_running_tasks_on_connection_loss", False),
    ],
)
def test_the_protocol_rests_on_these_settings(name: str, value: object) -> None:
    assert create_celery(lambda: SETTINGS).conf[name] == value


def test_each_task_goes_to_the_queue_of_its_name() -> None:
    routes = create_celery(lambda: SETTINGS).conf.task_routes
    assert {task: route["queue"] for task, route in routes.items()} == {
        "worker.inspect": "inspect",
        "worker.distill": "distill",
    }
