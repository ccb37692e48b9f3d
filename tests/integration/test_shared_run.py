"""A job whose distillation is shared among processes, over HTTP."""

import contextlib
import threading
from pathlib import Path

import psutil
from safetensors.torch import load

from cli.local.embedded import EmbeddedPostgres
from nayer_core.networks.registry import build
from tests.integration.conftest import INPUT_SIZE, Digits, running_stack


def ranks_of_runs() -> set[str]:
    """Which processes of a shared run live now, as each knows itself."""
    pids = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if {"nayer_core", "distill"} <= set(process.cmdline()):
                pids.add(process.environ().get("RANK", ""))
    return pids


def test_a_job_is_distilled_by_two_processes(
    postgres: EmbeddedPostgres, digits: Digits, tmp_path: Path
) -> None:
    spec = {**digits.spec, "student": {"architecture": "wrn_10_1"}}
    lines: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            lines.update(ranks_of_runs())

    watching = threading.Thread(target=watch)
    with running_stack(postgres, tmp_path, processes_per_job="2") as stack:
        watching.start()
        try:
            job = stack.follow(stack.submit(spec, teacher=digits.teacher_file)["id"])
        finally:
            over.set()
            watching.join()
        assert job["status"] == "succeeded", (job["error"], stack.log.read_text()[-4000:])
        assert job["attempt"] == 1
        student = stack.http.get(f"/jobs/{job['id']}/student").content
    build("wrn_10_1", num_classes=10, input_size=INPUT_SIZE).load_state_dict(load(student))
    assert {"0", "1"} <= lines
