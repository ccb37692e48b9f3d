"""The numbers of a configuration have ends, so that sums and products of a stranger's stay finite."""

import types
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.presets import PRESETS
from nayer_core.contract.spec import JobSpec

HUGE = 10**12


def kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation allows."""
    if get_origin(annotation) in (Union, types.UnionType):
        return {kind for argument in get_args(annotation) for kind in kinds(argument)}
    return {annotation}


def numbers(model: type[BaseModel]) -> list[str]:
    """Fields that take a number."""
    fields = model.model_fields.items()
    return [name for name, field in fields if kinds(field.annotation) & {int, float}]


@pytest.mark.parametrize("name", numbers(DistillConfig))
def test_every_number_of_a_configuration_has_an_upper_bound(name: str) -> None:
    with pytest.raises(ValidationError) as raised:
        DistillConfig.model_validate({name: HUGE})
    (error,) = raised.value.errors()
    assert error["type"] in ("less_than", "less_than_equal")
    assert error["loc"] == (name,)


@pytest.mark.parametrize("name", numbers(JobSpec))
def test_every_number_of_a_spec_has_an_upper_bound(name: str) -> None:
    with pytest.raises(ValidationError) as raised:
        JobSpec.model_validate({name: HUGE})
    assert (name,) in [error["loc"] for error in raised.value.errors() if error["type"].startswith("less")]


@pytest.mark.parametrize("name", ["synthesis_batch_size", "student_batch_size"])
def test_a_batch_has_at_most_16384_images(name: str) -> None:
    DistillConfig.model_validate({name: 16_384})
    with pytest.raises(ValidationError):
        DistillConfig.model_validate({name: 16_385})


def test_the_presets_keep_their_own_bounds() -> None:
    for preset in PRESETS.values():
        DistillConfig.model_validate(preset.config.model_dump())
