"""The presets are Table 10's, and resolve as the documents say."""

import pytest
from pydantic import ValidationError

from nayer_core.contract.methods import METHODS
from nayer_core.contract.presets import PRESETS
from nayer_core.contract.spec import JobSpec

SMALL, LARGE = (3, 32, 32), (3, 224, 224)


@pytest.mark.parametrize(
    ("preset", "student_batch", "synthesis_batch", "ce", "bn", "adv", "rounds", "g", "steps"),
    [
        ("paper-cifar10", 512, 400, 0.5, 10, 1.33, 2, 30, 400),
        ("paper-cifar100", 512, 400, 0.5, 10, 1.33, 2, 40, 400),
        ("paper-tiny-imagenet", 256, 200, 0.5, 10, 1.33, 4, 60, 1000),
        ("paper-imagenet", 128, 50, 0.1, 0.1, 0.1, 20, 100, 2000),
    ],
)
def test_the_papers_presets_are_table_10(
    preset: str,
    student_batch: int,
    synthesis_batch: int,
    ce: float,
    bn: float,
    adv: float,
    rounds: int,
    g: int,
    steps: int,
):
    config = PRESETS[preset].config
    assert (config.student_batch_size, config.synthesis_batch_size) == (student_batch, synthesis_batch)
    assert (config.ce_weight, config.bn_weight, config.adv_weight) == (ce, bn, adv)
    assert (config.rounds_per_epoch, config.generator_steps, config.student_steps) == (rounds, g, steps)
    assert (config.temperature, config.cutmix, config.images_of_last_steps) == (20.0, 0.0, 0)
    assert not PRESETS[preset].whiten


def test_auto_is_balanced():
    assert METHODS["nayer"].resolve_config("auto", {}, SMALL) == ("balanced", PRESETS["balanced"].config)


@pytest.mark.parametrize("preset", ["auto", "quick", "balanced"])
def test_everyday_presets_follow_the_size_of_the_images(preset: str):
    _, small = METHODS["nayer"].resolve_config(preset, {}, SMALL)
    _, large = METHODS["nayer"].resolve_config(preset, {}, LARGE)
    assert (small.generator, small.synthesis_batch_size, small.student_batch_size) == ("table8", 100, 128)
    assert (large.generator, large.synthesis_batch_size, large.student_batch_size) == ("table9", 50, 64)
    assert (large.bank_capacity, large.student_lr) == (50_000, 0.1)


@pytest.mark.parametrize("preset", METHODS["nayer"].preset_names)
def test_the_clients_values_override_the_preset(preset: str):
    _, config = METHODS["nayer"].resolve_config(preset, {"generator": "published", "epochs": 7}, LARGE)
    assert (config.generator, config.epochs) == ("published", 7)


def test_an_override_out_of_range_is_refused():
    with pytest.raises(ValidationError):
        METHODS["nayer"].resolve_config("quick", {"bn_momentum": 1.0}, SMALL)


@pytest.mark.parametrize(
    ("preset", "request_value", "whiten"),
    [
        ("quick", None, True),
        ("auto", None, True),
        ("paper-cifar10", None, False),
        ("quick", False, False),
        ("paper-cifar10", True, True),
    ],
)
def test_without_a_value_the_preset_decides_whitening(preset: str, request_value: bool | None, whiten: bool):
    spec = JobSpec.model_validate(
        {
            "labels": ["cat", "dog"],
            "teacher": {"input_size": SMALL, "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3}},
            "student": {"architecture": "wrn_16_1"},
            "preset": preset,
            "text_encoder": {"whiten": request_value},
        }
    )
    assert spec.resolved_text_encoder().whiten is whiten
