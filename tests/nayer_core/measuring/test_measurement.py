"""What is told of a run's images while it goes on."""

from nayer_core.contract.events import MetricsEvent, WarningEvent
from nayer_core.measuring.measurement import Measurement
from tests.support.small_runs import Run


def measured(*, one_image_a_class: bool) -> Run:
    """A run whose bank holds two rounds, every image its own or all of a class the same."""
    run = Run()
    distillation = run.distillation
    distillation.synthesizer.redraw_generator()
    rounds = [distillation.synthesizer.run_round(index, None) for index in range(2)]
    shown = rounds[0].images[: distillation.lte.shape[0]]  # a round begins with each class once
    for made in rounds:
        images = shown[made.labels] if one_image_a_class else made.images
        distillation.bank.add(images, made.labels)
    distillation.position.epoch = distillation.config.warmup_epochs + distillation.config.epochs
    Measurement(distillation, distillation.synthesizer.teacher, None, run.events.append).after_epoch()
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
