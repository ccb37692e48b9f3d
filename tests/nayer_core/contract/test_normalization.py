"""Normalisations by name, and values on the wrong scale."""

from typing import Any

import pytest
from pydantic import ValidationError

from nayer_core.contract.normalization import NAMED
from nayer_core.contract.spec import TeacherSpec


def teacher(normalization: Any, channels: int = 3) -> TeacherSpec:
    return TeacherSpec.model_validate({"input_size": [channels, 32, 32], "normalization": normalization})


def refusal(normalization: Any, channels: int = 3) -> str:
    with pytest.raises(ValidationError) as raised:
        teacher(normalization, channels)
    (error,) = raised.value.errors()
    assert error["loc"] == ("normalization",)
    return error["msg"]


@pytest.mark.parametrize("name", NAMED)
def test_a_name_gives_values_for_each_channel(name: str) -> None:
    values = teacher(name).normalization
    assert len(values.mean) == len(values.std) == 3
    assert values.mean[: len(NAMED[name][0])] == NAMED[name][0]


def test_names_have_the_constants_of_timm() -> None:
    constants = pytest.importorskip("timm.data.constants")
    assert NAMED["imagenet"] == (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD)
    assert NAMED["clip"] == (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)
    inception = teacher("inception").normalization
    assert (inception.mean, inception.std) == (
        constants.IMAGENET_INCEPTION_MEAN,
        constants.IMAGENET_INCEPTION_STD,
    )


@pytest.mark.parametrize("name", ["mnist", "none", "inception"])
def test_names_of_one_value_hold_for_gray_images(name: str) -> None:
    assert len(teacher(name, 1).normalization.mean) == 1


def test_names_of_three_values_do_not_hold_for_gray_images() -> None:
    assert "'imagenet' has values for 3 channels, and input_size has 1" in refusal("imagenet", 1)


def test_an_unknown_name_is_answered_with_the_names() -> None:
    assert "'imagenet', 'inception', 'clip'" in refusal("ImageNet-1k")


@pytest.mark.parametrize(
    ("mean", "std", "meant"),
    [
        (
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
            "mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]",
        ),
        (
            [125.3, 123.0, 113.9],
            [63.0, 62.1, 66.7],
            "mean [0.4914, 0.4824, 0.4467], std [0.2471, 0.2435, 0.2616]",
        ),
        ([127.5] * 3, [127.5] * 3, "mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]"),
        ([123.68, 116.78, 103.94], [1.0] * 3, "std [0.003922, 0.003922, 0.003922]"),  # Caffe
        ([0.0] * 3, [255.0] * 3, "mean [0.0, 0.0, 0.0], std [1.0, 1.0, 1.0]"),
        ([0.485] * 3, [58.0] * 3, "std [0.2275, 0.2275, 0.2275]"),
    ],
)
def test_values_for_images_of_255_are_refused_with_those_that_are_meant(
    mean: list[float], std: list[float], meant: str
) -> None:
    message = refusal({"mean": mean, "std": std})
    assert "Divide both by 255" in message
    assert meant in message


def test_values_of_no_scale_are_refused() -> None:
    assert "means up to 1" in refusal({"mean": [1e5] * 3, "std": [1.0] * 3})


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.0], [1.0]), ([0.5], [0.5]), ([-0.1], [0.01]), ([0.4850], [0.003922]), ([1.0], [1.0])],
)
def test_values_for_images_in_0_to_1_are_taken(mean: list[float], std: list[float]) -> None:
    assert teacher({"mean": mean, "std": std}, 1).normalization.mean == tuple(mean)
