"""The rows of the table are configurations, and the ways that are not the method's run."""

import json

import pytest
import torch

from benchmarks.replay import Priority, Recent, Views, Views2, Views8
from benchmarks.student_learning import RESULTS, ROWS
from nayer_core.contract.config import DistillConfig
from nayer_core.methods.parts.student_training import StudentTrainer
from tests.support.small_runs import CONFIG, SmallRun


def test_every_row_is_a_configuration_and_every_result_a_row():
    for row in ROWS.values():
        DistillConfig.model_validate(row.config)
    assert {json.loads(line)["row"] for line in RESULTS.read_text().splitlines()} <= ROWS.keys()


@pytest.mark.parametrize("trainer", [Views, Views2, Views8, Recent, Priority])
def test_other_ways_of_drawing_train_the_student(trainer: type[StudentTrainer]):
    run = SmallRun(CONFIG)
    run.method.trainer.__class__ = trainer
    before = run.weights()
    assert run.go_on()
    assert run.method.trainer.steps_done == CONFIG.epochs * CONFIG.student_steps
    after = run.weights()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
