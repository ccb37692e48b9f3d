"""What is told of a run's images while it goes on."""

import torch

from nayer_core.contract.events import MetricsEvent, WarningEvent
from nayer_core.measuring.measurement import Measurement
from nayer_core.running.method import result_of
from tests.support.small_runs import LABELS, SmallRun


def measured(
    *, one_image_a_class: bool, only_class: int | None = None, answer: int | None = None
) -> SmallRun:
    """A run whose bank holds two rounds.

    Args:
        one_image_a_class: whether all images of a class are the same; else each is its own.
        only_class: the only class that images are made for; None for all four.
        answer: the class that the teacher sees in every image; None leaves it as it is.
    """
    run = SmallRun()
    teacher = run.distillands.teacher
    if answer is not None:
        head = [layer for layer in teacher.modules() if isinstance(layer, torch.nn.Linear)][-1]
        head.weight.data.zero_()
        head.bias.data = torch.nn.functional.one_hot(torch.tensor(answer), 4).float()
    run.method.synthesizer.redraw_generator()
    rounds = [result_of(run.method.synthesizer.run_round(index, None)) for index in range(2)]
    one_a_class = rounds[0].images[: len(LABELS)]  # a round begins with each class once
    for result in rounds:
        images = one_a_class[result.labels] if one_image_a_class else result.images
        selection = result.labels >= 0 if only_class is None else result.labels == only_class
        run.method.bank.add(images[selection], result.labels[selection])
    run.method.position.epoch = run.run.plan.epochs
    Measurement(run.run, run.distillands, None).after_epoch()
    return run


def collapse(run: SmallRun) -> str:
    """The message of the one warning of a run."""
    (warning,) = run.of(WarningEvent)
    assert warning.code == "generator_collapse"
    return str(warning.message)


def test_a_generator_that_repeats_itself_leads_to_a_warning() -> None:
    run = measured(one_image_a_class=True)
    (report,) = run.of(MetricsEvent)
    assert report.values["diversity"] > 0.01  # of all pairs: classes differ
    assert report.values["class_diversity"] < 1e-3
    message = collapse(run)
    assert "diversity within a class 0.000, the least is 0.2" in message
    assert "25% of the requested ones, the least is 50%" in message


def test_a_warning_of_collapse_names_only_the_violated_limit() -> None:
    repeating = collapse(measured(one_image_a_class=True, only_class=1, answer=1))
    assert "diversity within a class 0.000, the least is 0.2" in repeating
    assert "%" not in repeating
    missing = collapse(measured(one_image_a_class=False, answer=1))
    assert "the teacher sees 25% of the requested ones, the least is 50%" in missing
    assert "diversity" not in missing


def warnings_after(label_losses: list[float]) -> list[WarningEvent]:
    """The warnings of a run whose rounds had these label losses; four classes, so chance is 1.39."""
    run = SmallRun()
    for loss in label_losses:
        run.run.report({"ce": loss})
    measurement = Measurement(run.run, run.distillands, None)
    measurement.after_epoch()
    measurement.after_epoch()
    return run.of(WarningEvent)


def test_failing_synthesis_is_told_early_and_once_with_its_numbers() -> None:
    (warning,) = warnings_after([1.5, 0.4, 7.1])
    assert warning.code == "synthesis_failing"
    assert "in 2 of 3 rounds" in warning.message
    assert "label loss 7.10 in the latest, 1.39 is chance" in warning.message
    assert "config.bn_weight" in warning.message


def test_synthesis_is_not_called_failing_before_three_rounds_or_where_most_succeed() -> None:
    assert warnings_after([7.1, 7.1]) == []
    assert warnings_after([7.1, 7.1, 0.1, 0.1]) == []


def test_diversity_within_a_class_is_reported() -> None:
    run = measured(one_image_a_class=False)
    (report,) = run.of(MetricsEvent)
    assert report.values["class_diversity"] > 1e-3
    assert run.of(WarningEvent) == []
