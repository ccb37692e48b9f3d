"""How `nayer serve` divides a machine among its workers."""

import pytest

from cli.errors import ServeError
from cli.local.stack import _shares


def test_each_worker_gets_a_gpu_for_every_process_of_its_job() -> None:
    gpus = ["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e"]
    assert _shares(gpus, 1) == gpus
    assert _shares(gpus, 2) == ["GPU-a,GPU-b", "GPU-c,GPU-d"]


def test_without_a_gpu_there_is_one_worker_whose_processes_share_the_cores() -> None:
    assert _shares([], 1) == _shares([], 4) == [""]


def test_too_few_gpus_for_one_job_are_refused() -> None:
    with pytest.raises(ServeError, match="NAYER_PROCESSES_PER_JOB is 4, and there are 2 GPUs"):
        _shares(["0", "1"], 4)
