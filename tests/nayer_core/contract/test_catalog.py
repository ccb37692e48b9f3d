"""Names that are wrong are answered with those that were likely meant, and with none rather than any."""

import pytest
from pydantic_core import PydanticCustomError

from nayer_core.contract import catalog


def message(name: str) -> str:
    with pytest.raises(PydanticCustomError) as raised:
        catalog.require_architecture(name)
    assert raised.value.type == "unknown_architecture"
    return raised.value.message()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("wrn16_1", "wrn_16_1"),
        ("wrn_16_l", "wrn_16_1"),
        ("ResNet-18", "resnet18"),
        ("mobilenetv3", "timm/mobilenetv3_rw"),
        ("efficientnet_b0", "timm/efficientnet_b0"),
        ("efficientnet_b0", "torchvision/efficientnet_b0"),
        ("vit", "torchvision/vit_b_16"),
        ("convnext-tiny", "timm/convnext_tiny"),
        ("facebook/convnext-tiny-224", "timm/convnext_tiny"),
        ("timm/resnet_18", "timm/resnet18"),
    ],
)
def test_the_name_that_was_likely_meant_is_among_the_nearest(name: str, nearest: str) -> None:
    text = message(name)
    assert nearest in text.partition("the nearest")[2].replace(",", " ").split()


@pytest.mark.parametrize("name", ["zzz", "", "/", "?" * 300])
def test_an_unusual_name_has_no_nearest_name(name: str) -> None:
    assert message(name) == f"there is no architecture named '{name[:200]}'"


def test_a_short_list_of_names_is_given_whole() -> None:
    with pytest.raises(PydanticCustomError) as raised:
        catalog.require_name("zzz", ("auto", "quick"), "preset")
    assert raised.value.message() == "there is no preset named 'zzz'; there are auto, quick"
    with pytest.raises(PydanticCustomError) as raised:
        catalog.require_name("quickest", ("auto", "quick"), "preset")
    assert raised.value.message().endswith("; the nearest is quick")
