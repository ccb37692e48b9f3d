"""The running average of the student's weights that a client gets."""

import torch

from tests.support.small_runs import CONFIG, SmallRun


def copy_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def run_with(share: float) -> SmallRun:
    run = SmallRun(CONFIG.model_copy(update={"student_averaging": share}))
    embedded = run.make_round()
    run.method.bank.add(embedded.images, embedded.labels)
    return run


def test_without_averaging_the_client_gets_the_student_itself() -> None:
    run = run_with(0.0)
    run.method.trainer.step(run.method.bank)
    assert run.run.student is run.student


def test_the_average_follows_the_student_and_forgets_its_beginning() -> None:
    run = run_with(0.3)
    trainer = run.method.trainer
    expected = copy_of(run.student)
    for step in range(1, 6):
        trainer.step(run.method.bank)
        old_share = min(0.3, (1 + step) / (10 + step))
        for name, latest in run.student.state_dict().items():
            mean = old_share * expected[name] + (1 - old_share) * latest
            expected[name] = mean if latest.is_floating_point() else latest.clone()
    student_weights = run.run.student.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(student_weights[name], value)
    assert any(
        not torch.equal(student_weights[name], value) for name, value in run.student.state_dict().items()
    )


def test_averaging_does_not_change_how_the_student_is_trained() -> None:
    weights = []
    for share in (0.0, 0.9):
        run = SmallRun(CONFIG.model_copy(update={"student_averaging": share}))
        run.go_on()
        weights.append(copy_of(run.student))
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
