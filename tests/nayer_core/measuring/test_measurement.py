"""What is told of a run's images while it goes on."""

from nayer_core.contract.events import MetricsEvent, WarningEvent
from nayer_core.measuring.measurement import Measurement
from nayer_core.running.method import result_of
from tests.support.small_runs import LABELS, SmallRun


def measured(*, one_image_a_class: bool) -> SmallRun:
    """A run whose bank holds two rounds, every image its own or all of a class the same."""
    run = SmallRun()
    run.method.synthesizer.redraw_generator()
    rounds = [result_of(run.method.synthesizer.run_round(index, None)) for index in range(2)]
    one_a_class = rounds[0].images[: len(LABELS)]  # a round begins with each class once
    for made in rounds:
        images = one_a_class[made.labels] if one_image_a_class else made.images
        run.method.bank.add(images, made.labels)
    run.method.position.epoch = run.run.plan.epochs
    Measurement(run.run, run.distillands, None).after_epoch()
    return run


def test_a_generator_that_repeats_itself_is_told_by_a_warning() -> None:
    run = measured(one_image_a_class=True)
    (report,) = run.of(MetricsEvent)
    assert report.values["diversity"] > 0.01  # of all pairs: classes differ
    assert report.values["class_diversity"] < 1e-3
    assert [warning.code for warning in run.of(WarningEvent)] == ["generator_collapse"]


def test_diversity_within_a_class_is_reported() -> None:
    (report,) = measured(one_image_a_class=False).of(MetricsEvent)
    assert report.values["class_diversity"] > 1e-3
