"""Measurements of a run, during it and at its end, on images that are not used for training."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.contract.events import Phase, PhaseEvent, WarningEvent
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.hardware.device_memory import give_back_unused
from nayer_core.hardware.precision import Arithmetic
from nayer_core.measuring import signals
from nayer_core.measuring.agreement_map import AgreementEstimate, Circumstances, fitted_map
from nayer_core.measuring.evaluation import (
    EvaluationSet,
    accuracy_bounds,
    predict,
    share_equal,
    share_interval,
)
from nayer_core.measuring.quality import (
    LEAST_CLASS_COVERAGE,
    LEAST_CLASS_DIVERSITY,
    agreement_by_class,
    answers,
    calibration_error,
    class_coverage,
    class_diversity_score,
    diversity_score,
    inception_score,
)
from nayer_core.methods.parts.bn_regularization import is_experimental
from nayer_core.methods.parts.image_priors import PROCEDURAL_IMAGES, weight_of
from nayer_core.running.method import Distillands, Plan, Samples
from nayer_core.running.run import Run

MEASUREMENTS_A_RUN = 10
JUDGED_ROUNDS = 3  # the fewest from which synthesis is called failing
OLD_IMAGES = 500  # of the bank, for the diversity score

Metrics = dict[str, dict[str, Any]]  # name -> value (or lower and upper) and measured_on

ON_EVALUATION_SET = "the evaluation set uploaded with the job ({count} images)"
ON_HELD_OUT_SYNTHETIC = (
    "{count} synthetic images of a generator trained for this alone, none of which the student "
    "learned from; good for comparing students of one teacher, and not accuracy on real images"
)
ON_ADVERSARIAL_SYNTHETIC = (
    "{count} synthetic images made to part the finished student from its teacher; good for finding what the "
    "student still gets wrong, and not accuracy on real images"
)
STATED_BY_CLIENT = "stated by the client (teacher.accuracy); not measured here"


@dataclass(frozen=True)
class Findings:
    """What was measured of a finished run.

    Args:
        metrics: by name: `value`, or `lower` and `upper`, and `measured_on`.
        quality: {"estimated_agreement": {"value", "low", "high", "basis"}}.
    """

    metrics: Metrics
    quality: dict[str, Any]


class Measurement:
    """Measures one run.

    Args:
        run: the run to measure; it emits the warnings and phases.
        distillands: the teacher, and the normalisation of its images.
        evaluation: the client's images, if there are any.
    """

    def __init__(self, run: Run, distillands: Distillands, evaluation: EvaluationSet | None):
        self.run = run
        self.teacher = distillands.teacher
        self.augment = distillands.augment
        self.evaluation = evaluation
        # Measurements are in float32, whatever the number format of the run.
        self.exact = Arithmetic(run.machine.device, torch.float32)
        self.chance = math.log(len(distillands.label_embeddings))  # label loss of a teacher that says nothing
        self._warned: set[str] = set()

    def after_epoch(self) -> None:
        """Report diversity, inception score and accuracy, about ten times a run after warm-up.

        Warns once where most synthesis rounds so far have not reached their labels.
        """
        self._warn_of_failing_synthesis()
        if not _is_due(self.run.method.epoch, self.run.plan):
            return
        values = self._quality_of_images()
        if self.evaluation is not None:
            predictions = self._predict(self.run.student, self.evaluation.images)
            values["student_accuracy"] = share_equal(predictions, self.evaluation.labels)
        self.run.report(values)

    def at_the_end(self, spec: ResolvedSpec, seed: int) -> Findings:
        """Compare student and teacher on the client's images, if there are any, and on new synthetic ones."""
        self.run.emit(PhaseEvent(phase=Phase.EVALUATE))
        give_back_unused(self.exact.device)  # memory cached for steps does not fit what follows
        samples = self.run.method.samples(seed + 1)
        metrics = self._on_evaluation_set() | self._on_synthetic_images(spec, samples)
        agreement = self._agreement(spec, metrics, seed)
        metrics = _stated_and_bounds(spec, agreement) | metrics
        return Findings(metrics, {"estimated_agreement": agreement.as_json()})

    def _agreement(self, spec: ResolvedSpec, metrics: Metrics, seed: int) -> AgreementEstimate:
        """Agreement on the client's images, if there are any; else the estimate from synthetic ones."""
        if self.evaluation is not None:
            value, count = metrics["agreement"]["value"], len(self.evaluation.labels)
            basis = f"measured: on {ON_EVALUATION_SET.format(count=count)}"
            return AgreementEstimate(value, *share_interval(value, count), basis)
        if weight_of(PROCEDURAL_IMAGES, self.teacher, spec.config):
            return AgreementEstimate.unknown("the student learned from procedural images too")
        circumstances = Circumstances(
            method=spec.method,
            preset=spec.preset,
            side=max(spec.input_size[1:]),
            classes=spec.num_classes,
            batch_norm=not is_experimental(self.teacher),
        )
        rng, bank = torch.Generator().manual_seed(seed), self.run.method.bank
        values = signals.measure(self.teacher, self.run.student, bank, self.augment, self.exact, rng)
        return fitted_map().estimate(values, circumstances)

    def _quality_of_images(self) -> dict[str, float]:
        """Measure the newest round against older images, and warn once where a generator has collapsed."""
        bank = self.run.method.bank
        newest = bank.segments[-1]
        images, labels = bank.read(newest)
        new = answers(self.teacher, images, self.augment, self.exact)
        values = {"inception_score": inception_score(new.logits)}
        coverage = class_coverage(new.logits, labels)
        if len(bank.segments) > 1:
            values |= self._diversity(new.features, labels.cpu())
        self._warn_of_collapse(values.get("class_diversity", math.inf), coverage)
        return values

    def _diversity(self, new: Tensor, labels: Tensor) -> dict[str, float]:
        """Compare the newest round's features with images spread over the rest of the bank."""
        bank = self.run.method.bank
        older = [bank.read(segment) for segment in bank.segments[:-1]]
        images = torch.cat([images for images, _ in older])
        spread = torch.linspace(0, len(images) - 1, min(OLD_IMAGES, len(images))).long().to(images.device)
        old = answers(self.teacher, images[spread], self.augment, self.exact).features
        old_labels = torch.cat([labels for _, labels in older])[spread].cpu()
        within = class_diversity_score(new, labels, old, old_labels)
        return {"diversity": diversity_score(new, old)} | (
            {} if within is None else {"class_diversity": within}
        )

    def _warn_of_collapse(self, diversity: float, coverage: float) -> None:
        """Warn once, and name each limit that is violated; an unknown `diversity` is infinite."""
        violations = []
        if diversity < LEAST_CLASS_DIVERSITY:
            violations.append(
                f"it makes nearly the same images again (diversity within a class {diversity:.3f}, the least"
                f" is {LEAST_CLASS_DIVERSITY})"
            )
        if coverage < LEAST_CLASS_COVERAGE:
            violations.append(
                f"it misses classes (the teacher sees {coverage:.0%} of the requested ones, the least is"
                f" {LEAST_CLASS_COVERAGE:.0%})"
            )
        if violations:
            message = f"The generator has collapsed: {', and '.join(violations)}."
            self._warn(
                "generator_collapse", f"{message} More config.generator_steps or another seed may help."
            )

    def _warn_of_failing_synthesis(self) -> None:
        """Warn once where the teacher does not see the requested classes in most rounds."""
        losses = [event.values["ce"] for event in self.run.reported if "ce" in event.values]
        failed = [loss for loss in losses if loss >= self.chance]
        if len(losses) >= JUDGED_ROUNDS and 2 * len(failed) > len(losses):
            self._warn(
                "synthesis_failing",
                f"Synthesis is failing: in {len(failed)} of {len(losses)} rounds the teacher does not see "
                f"the classes that the images were made for (label loss {losses[-1]:.2f} in the latest, "
                f"{self.chance:.2f} is chance). A student learns little from such images. Check "
                "teacher.normalization; a smaller config.bn_weight or more config.generator_steps may help.",
            )

    def _warn(self, code: str, message: str) -> None:
        """Emit a warning, unless it has been emitted before."""
        if code not in self._warned:
            self._warned.add(code)
            self.run.emit(WarningEvent(code=code, message=message))

    def _on_evaluation_set(self) -> Metrics:
        if self.evaluation is None:
            return {}
        measured_on = ON_EVALUATION_SET.format(count=len(self.evaluation.labels))
        images, labels = self.evaluation.images, self.evaluation.labels
        by_teacher = self._predict(self.teacher, images)
        by_student = self._predict(self.run.student, images)
        values = {
            "teacher_accuracy": share_equal(by_teacher, labels),
            "student_accuracy": share_equal(by_student, labels),
            "agreement": share_equal(by_student, by_teacher),
        }
        return {name: {"value": value, "measured_on": measured_on} for name, value in values.items()}

    def _on_synthetic_images(self, spec: ResolvedSpec, samples: Samples) -> Metrics:
        """Compute the label-free score card on images made like the bank's, and on provoking ones."""
        student, teacher = (
            answers(network, samples.plain, self.augment, self.exact).logits
            for network in (self.run.student, self.teacher)
        )
        by_class = agreement_by_class(student, teacher)
        weakest = min(by_class, key=lambda index: by_class[index])
        values: dict[str, Any] = {
            "agreement_on_synthetic": share_equal(student.argmax(dim=1), teacher.argmax(dim=1)),
            "calibration_error_on_synthetic": calibration_error(student, teacher),
            "weakest_class_agreement_on_synthetic": by_class[weakest],
            **{f"{name}_of_synthetic": value for name, value in samples.measurements.items()},
        }
        measured_on = ON_HELD_OUT_SYNTHETIC.format(count=len(samples.plain))
        metrics: Metrics = {
            name: {"value": value, "measured_on": measured_on} for name, value in values.items()
        }
        metrics["weakest_class_agreement_on_synthetic"]["class"] = spec.labels[weakest]
        return metrics | {"agreement_on_adversarial": self._on_provoking_images(samples.provoking)}

    def _on_provoking_images(self, images: Tensor) -> dict[str, Any]:
        by_student, by_teacher = (
            self._predict(network, images) for network in (self.run.student, self.teacher)
        )
        return {
            "value": share_equal(by_student, by_teacher),
            "measured_on": ON_ADVERSARIAL_SYNTHETIC.format(count=len(images)),
        }

    def _predict(self, network: nn.Module, images: Tensor) -> Tensor:
        return predict(network, images, self.augment, self.exact)


def _stated_and_bounds(spec: ResolvedSpec, agreement: AgreementEstimate) -> Metrics:
    """The accuracy that the client states of its teacher, and what follows for the student's, if anything."""
    if spec.teacher_accuracy is None:
        return {}
    stated = {"value": spec.teacher_accuracy, "measured_on": STATED_BY_CLIENT}
    if agreement.low is None:
        return {"teacher_accuracy_stated": stated}
    # The lower the agreement, the wider the bounds: those of its low end hold for the whole interval.
    lower, upper = accuracy_bounds(spec.teacher_accuracy, agreement.low)
    where = f"the low end of quality.estimated_agreement ({agreement.basis})"
    bounds = {"lower": lower, "upper": upper, "measured_on": where}
    return {"teacher_accuracy_stated": stated, "student_accuracy_bounds": bounds}


def _is_due(epochs_done: int, plan: Plan) -> bool:
    """Whether to measure after this epoch: about ten times, and always after the last."""
    trained, epochs = epochs_done - plan.warmup_epochs, plan.epochs - plan.warmup_epochs
    return trained > 0 and (trained == epochs or trained % math.ceil(epochs / MEASUREMENTS_A_RUN) == 0)
