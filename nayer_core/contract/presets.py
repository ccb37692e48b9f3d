"""NAYER's named configurations: the paper's four (Table 10) and two for everyday use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nayer_core.contract.config import DistillConfig, MethodConfig


@dataclass(frozen=True)
class Preset:
    """A named set of configuration values, and its purpose.

    Attributes:
        summary: for people who choose one.
        config: the values.
        whiten: the value of `text_encoder.whiten` if the client gives none.
        large_images: values that differ for images above `LARGE_IMAGE_SIDE` pixels.
    """

    summary: str
    config: MethodConfig
    whiten: bool = False
    large_images: Mapping[str, Any] = field(default_factory=dict)


# Runs of minutes to an hour. Against the paper's: small batches, so that generator and student get
# more steps for the same work; short epochs, so that the generator meets the student it has to provoke
# often; terms of Eq. 5 that have one size for every teacher; attention maps; a sharper loss,
# CutMix, a cosine that moves at each step, and the student's weights averaged over its latest steps. What was
# measured of each: docs/decisions/0005-everyday-presets.md, 0020 and 0025.
_EVERYDAY = DistillConfig(
    rounds_per_epoch=1,
    warmup_rounds_per_epoch=3,
    generator_steps=20,
    student_steps=76,
    synthesis_batch_size=100,
    images_of_last_steps=3,
    generator="table8",
    bn_weight=100.0,
    bn_scale="noise",
    adversary="js",
    drop_failed_rounds=True,
    student_batch_size=128,
    student_lr=0.1,
    student_lr_schedule="step",
    temperature=4.0,
    attention_weight=2.0,
    cutmix=0.5,
    student_averaging=0.97,
)

_EVERYDAY_LARGE: Mapping[str, Any] = MappingProxyType(
    {
        "generator": "table9",
        "bn_weight": 50.0,
        "synthesis_batch_size": 50,
        "bank_capacity": 50_000,
        "student_batch_size": 64,
        "student_steps": 38,
    }
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(
            summary="Minutes on a laptop: is this teacher worth a longer run?",
            config=_EVERYDAY.model_copy(update={"epochs": 12, "warmup_epochs": 1}),
            whiten=True,
            large_images={**_EVERYDAY_LARGE, "epochs": 30},
        ),
        "balanced": Preset(
            summary="A good student in a sensible time; the default.",
            config=_EVERYDAY.model_copy(update={"epochs": 200, "warmup_epochs": 1}),
            whiten=True,
            large_images=_EVERYDAY_LARGE,
        ),
        "paper-cifar10": Preset(
            summary="Table 10, CIFAR-10, E = 300.",
            config=DistillConfig(),
        ),
        "paper-cifar100": Preset(
            summary="Table 10, CIFAR-100, E = 300.",
            config=DistillConfig(generator_steps=40),
        ),
        "paper-tiny-imagenet": Preset(
            summary="Table 10, Tiny-ImageNet, E = 300.",
            config=DistillConfig(
                rounds_per_epoch=4,
                warmup_rounds_per_epoch=20,
                generator_steps=60,
                student_steps=1000,
                synthesis_batch_size=200,
                student_batch_size=256,
                student_lr=0.1,
            ),
        ),
        "paper-imagenet": Preset(
            summary="Table 10, ImageNet, E = 300.",
            config=DistillConfig(
                rounds_per_epoch=20,
                warmup_rounds_per_epoch=20,
                generator_steps=100,
                student_steps=2000,
                synthesis_batch_size=50,
                student_batch_size=128,
                generator="table9",
                ce_weight=0.1,
                bn_weight=0.1,
                adv_weight=0.1,
                student_lr=0.1,
                bank_capacity=100_000,
            ),
        ),
    }
)

DEFAULT_PRESET = "balanced"
LARGE_IMAGE_SIDE = 64  # pixels
