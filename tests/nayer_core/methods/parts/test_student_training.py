"""The running average of the student's weights that a client gets."""

import torch

from tests.support.small_runs import CONFIG, Run


def copy_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def run_with(share: float) -> Run:
    run = Run(CONFIG.model_copy(update={"student_averaging": share}))
    made = run.distillation.synthesizer
    made.redraw_generator()
    images = made.run_round(0, None)
    run.distillation.bank.add(images.images, images.labels)
    return run


def test_without_averaging_the_client_gets_the_student_itself() -> None:
    run = run_with(0.0)
    run.distillation.trainer.step(run.distillation.bank)
    assert run.distillation.distilled_student is run.student


def test_the_average_follows_the_student_and_forgets_its_beginning() -> None:
    run = run_with(0.3)
    trainer = run.distillation.trainer
    expected = copy_of(run.student)
    for step in range(1, 6):
        trainer.step(run.distillation.bank)
        kept = min(0.3, (1 + step) / (10 + step))
        for name, latest in run.student.state_dict().items():
            mean = kept * expected[name] + (1 - kept) * latest
            expected[name] = mean if latest.is_floating_point() else latest.clone()
    found = run.distillation.distilled_student.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert any(not torch.equal(found[name], value) for name, value in run.student.state_dict().items())


def test_averaging_does_not_change_how_the_student_is_trained() -> None:
    weights = []
    for share in (0.0, 0.9):
        run = Run(CONFIG.model_copy(update={"student_averaging": share}))
        run.distillation.run()
        weights.append(copy_of(run.student))
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
