"""The number of steps, epochs and images of a run of NAYER, derived from its configuration."""

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.events import Phase
from nayer_core.running.method import Plan, StepPlan


def plan_run(config: DistillConfig) -> Plan:
    """Count steps, epochs and images of a run with this configuration."""
    warmup_rounds = config.warmup_epochs * config.warmup_rounds_per_epoch
    rounds = config.epochs * config.rounds_per_epoch
    chosen_steps = min(max(1, config.images_of_last_steps), config.generator_steps)
    images_per_round = config.synthesis_batch_size * chosen_steps
    synthesis, student = config.synthesis_batch_size, config.student_batch_size
    return Plan(
        steps={
            "warmup": StepPlan(
                warmup_rounds * config.generator_steps, synthesis, "synthesis_batch_size", Phase.WARMUP, 1.0
            ),
            "adversarial": StepPlan(
                rounds * config.generator_steps, synthesis, "synthesis_batch_size", Phase.DISTILL, 1.25
            ),
            "student": StepPlan(
                config.epochs * config.student_steps, student, "student_batch_size", Phase.DISTILL, 0.6
            ),
        },
        epochs=config.warmup_epochs + config.epochs,
        warmup_epochs=config.warmup_epochs,
        images=(warmup_rounds + rounds) * images_per_round,
        images_per_round=images_per_round,
    )
