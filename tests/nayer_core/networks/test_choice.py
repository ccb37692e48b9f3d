"""Which of several networks with the same tensors is taken."""

import pytest

from nayer_core.networks import registry
from nayer_core.networks.choice import merge_equal, plainest


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (["torchvision/resnet18", "timm/resnetblur18"], "torchvision/resnet18"),
        (
            ["timm/tf_efficientnet_b0", "timm/efficientnet_blur_b0", "timm/efficientnet_b0"],
            "timm/efficientnet_b0",
        ),
        (["timm/resnetaa101d", "timm/resnet101d", "timm/resnetblur101d"], "timm/resnet101d"),
        (["timm/mobilenetv4_conv_aa_large", "timm/mobilenetv4_conv_large"], "timm/mobilenetv4_conv_large"),
        (["timm/nest_tiny_jx", "timm/nest_tiny"], "timm/nest_tiny"),
        (
            ["timm/vit_base_patch16_clip_quickgelu_224", "timm/vit_base_patch16_clip_224"],
            "timm/vit_base_patch16_clip_224",
        ),
        (["timm/volo_d3_448", "timm/volo_d3_224"], "timm/volo_d3_224"),
        # Neither name is made from the other.
        (["timm/test_efficientnet_gn", "timm/test_efficientnet_ln"], None),
        (["timm/swinv2_tiny_window8_256", "timm/swinv2_tiny_window16_256"], None),
        (["timm/vit_base_patch16_lingbot", "timm/vit_base_patch16_dinov3_qkvb"], None),
        # One of three is a variant of neither.
        (["timm/resnet18", "timm/resnetblur18", "timm/seresnet18"], "timm/resnet18"),
        (["timm/resnet18", "timm/resnetblur18", "timm/vgg11"], None),
    ],
)
def test_the_plain_network_is_the_one_that_the_other_names_are_made_from(names: list[str], plain: str | None):
    members = plainest([[name] for name in names], (3, 224, 224))
    assert (members and list(members)) == (plain and [plain])


def test_the_network_made_for_the_nearest_size_is_taken():
    classes = [["timm/volo_d5_224"], ["timm/volo_d5_448"], ["timm/volo_d5_512"]]
    for side, made_for in ((128, 224), (224, 224), (448, 448), (600, 512)):
        assert plainest(classes, (3, side, side)) == [f"timm/volo_d5_{made_for}"]


def test_one_class_needs_no_plain_name():
    assert plainest([["timm/a", "timm/b"]], (3, 32, 32)) == ["timm/a", "timm/b"]


def test_networks_that_answer_alike_at_the_size_at_hand_are_one_class():
    names = ["timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_384", "timm/deit_tiny_patch16_224"]
    assert merge_equal(names, (3, 64, 64)) == [names]


def test_networks_with_windows_of_other_sizes_are_two():
    names = ["timm/swinv2_tiny_window8_256", "timm/swinv2_tiny_window16_256"]
    assert merge_equal(names, (3, 128, 128)) == [[names[0]], [names[1]]]


def test_takes_says_whether_a_network_accepts_an_image_size():
    assert registry.takes("timm/crossvit_15_dagger_240", (3, 240, 240))
    assert not registry.takes("timm/crossvit_15_dagger_408", (3, 240, 240))
    with pytest.raises(Exception, match="unknown_architecture"):
        registry.takes("timm/no_such_network", (3, 32, 32))
