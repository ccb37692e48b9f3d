"""The network behind a state dict: every one of ours, the libraries' through wrappers, and what is said
where none, several or another one fits.
"""

import re
from collections.abc import Mapping

import pytest

from nayer_core.contract import catalog
from nayer_core.contract.errors import ErrorCode, SpecError, TeacherError
from nayer_core.networks import registry
from nayer_core.networks.misfit import head_classes
from nayer_core.networks.recognition import recognise

OWN = (*catalog.OWN_ARCHITECTURES, *catalog.WIDE_RESNETS, "wrn_22_3")
Shapes = Mapping[str, tuple[int, ...]]


def _shapes(
    name: str, classes: int = 10, size: tuple[int, int, int] = (3, 32, 32)
) -> dict[str, tuple[int, ...]]:
    return dict(registry.state_shapes(name, num_classes=classes, input_size=size))


def _error(shapes: Shapes, classes: int = 10, size=(3, 32, 32), architecture: str = "auto") -> TeacherError:
    with pytest.raises(TeacherError) as excinfo:
        recognise(shapes, num_classes=classes, input_size=size, architecture=architecture)
    return excinfo.value


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("name", OWN)
def test_every_own_network_is_recognised(name: str, size: tuple[int, int, int]):
    result = recognise(_shapes(name, 7, size), num_classes=7, input_size=size)
    assert (result.architecture, result.candidates) == (name, (name,))
    assert all(old == new for old, new in result.renamed.items())


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision/resnet34", (1, 28, 28)),
        ("torchvision/wide_resnet50_2", (3, 64, 64)),
        ("torchvision/vit_b_16", (3, 64, 64)),
        ("torchvision/regnet_y_400mf", (3, 32, 32)),
        ("torchvision/inception_v3", (3, 96, 96)),
        ("timm/resnet26", (3, 32, 32)),
    ],
)
def test_library_networks_are_recognised(name: str, size: tuple[int, int, int]):
    result = recognise(_shapes(name, 100, size), num_classes=100, input_size=size)
    assert result.architecture == name
    assert name in result.candidates


def test_networks_that_compute_the_same_are_one():
    result = recognise(_shapes("timm/densenet121"), num_classes=10, input_size=(3, 32, 32))
    assert result.architecture == "torchvision/densenet121"
    assert result.candidates == ("torchvision/densenet121", "timm/densenet121")


# Those of 50 well-known networks of timm that share their tensors with others.
@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("timm/resnet18", "torchvision/resnet18"),
        ("timm/resnetblur18", "torchvision/resnet18"),
        ("timm/resnet50", "torchvision/resnet50"),
        ("timm/efficientnet_b0", "timm/efficientnet_b0"),
        ("timm/tf_efficientnet_b0", "timm/efficientnet_b0"),
        ("timm/efficientnet_b3", "timm/efficientnet_b3"),
        ("timm/tf_efficientnetv2_s", "timm/efficientnetv2_s"),
        ("timm/mobilenetv3_small_100", "timm/mobilenetv3_small_100"),
        ("timm/mobilenetv3_large_100", "timm/mobilenetv3_large_100"),
    ],
)
def test_of_networks_that_share_their_tensors_the_plain_one_is_assumed(name: str, plain: str):
    result = recognise(_shapes(name), num_classes=10, input_size=(3, 32, 32))
    assert result.architecture == plain
    assert result.alternatives
    assert plain not in result.alternatives
    assert name in result.candidates
    by_name = recognise(_shapes(name), num_classes=10, input_size=(3, 32, 32), architecture=name)
    assert (by_name.architecture, by_name.alternatives) == (name, ())


def test_networks_that_differ_only_in_the_image_size_they_were_made_for_are_one():
    size = (3, 64, 64)
    result = recognise(_shapes("timm/vit_base_patch16_224", 10, size), num_classes=10, input_size=size)
    assert result.architecture == "timm/vit_base_patch16_224"
    assert "timm/vit_base_patch16_384" in result.candidates
    assert result.alternatives == ()


def test_a_network_that_cannot_take_the_images_is_no_candidate():
    size = (3, 240, 240)
    result = recognise(_shapes("timm/crossvit_15_dagger_240", 10, size), num_classes=10, input_size=size)
    assert result.candidates == ("timm/crossvit_15_dagger_240",)


def test_equal_tensors_without_a_plain_network_need_a_name():
    size = (3, 64, 64)
    error = _error(_shapes("timm/test_efficientnet_gn", 10, size), size=size)
    assert error.code == ErrorCode.ARCHITECTURE_AMBIGUOUS
    names = ("timm/test_efficientnet_gn", "timm/test_efficientnet_ln")
    for name in names:
        assert name in error.message
        assert f"teacher.architecture: {name}" in error.hint


def test_batch_counters_may_be_absent():
    shapes = {name: shape for name, shape in _shapes("resnet20").items() if "num_batches" not in name}
    assert recognise(shapes, num_classes=10, input_size=(3, 32, 32)).architecture == "resnet20"


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("resnet34", ("downsample.", "fc."), ("shortcut.", "linear.")),
        ("wrn_16_2", ("shortcut.",), ("convShortcut.",)),
        ("resnet20", ("linear.",), ("fc.",)),
    ],
)
def test_names_of_other_implementations_are_understood(
    name: str, ours: tuple[str, ...], theirs: tuple[str, ...]
):
    shapes = {}
    for key, shape in _shapes(name).items():
        for our, their in zip(ours, theirs, strict=True):
            key = key.replace(our, their)
        shapes[key] = shape
    for architecture in ("auto", name):
        result = recognise(shapes, num_classes=10, input_size=(3, 32, 32), architecture=architecture)
        assert result.architecture == name
        assert set(result.renamed) == set(shapes)
        assert set(result.renamed.values()) == set(_shapes(name))


def test_auxiliary_heads_are_left_out():
    shapes = _shapes("torchvision/inception_v3", 10, (3, 96, 96))
    shapes |= {"AuxLogits.conv0.conv.weight": (128, 768, 1, 1), "AuxLogits.fc.weight": (10, 768)}
    result = recognise(shapes, num_classes=10, input_size=(3, 96, 96))
    assert result.architecture == "torchvision/inception_v3"
    assert not any(name.startswith("AuxLogits") for name in result.renamed)


@pytest.mark.parametrize("architecture", ["auto", "resnet20"])
def test_a_wrong_number_of_labels_is_reported(architecture: str):
    error = _error(_shapes("resnet20", 100), classes=10, architecture=architecture)
    assert error.code == ErrorCode.CLASS_COUNT_MISMATCH
    assert "100 classes" in error.message
    assert "10 labels" in error.message
    assert "Give 100 labels" in error.hint


@pytest.mark.parametrize(
    ("name", "size", "classes", "setting"),
    [
        ("resnet20", (1, 32, 32), 10, "teacher.input_size: [1, 32, 32], and a mean and a std for each"),
        ("lenet5", (3, 64, 64), 10, "teacher.input_size: [3, 64, 64]"),
        ("lenet5", (1, 64, 64), 7, "and 7 labels"),
        ("timm/vit_small_patch32_224", (3, 384, 384), 10, "teacher.input_size: [3, 384, 384]"),
        ("lenet5", (3, 52, 40), 10, "the usual square sizes do not fit"),
        ("resnet20", (4, 32, 32), 10, "Only teachers for images of 1 channel (gray) or 3 (RGB)"),
    ],
)
def test_the_error_names_the_image_size_that_fits(
    name: str, size: tuple[int, int, int], classes: int, setting: str
):
    error = _error(_shapes(name, classes, size))
    assert error.code == ErrorCode.ARCHITECTURE_MISMATCH
    assert f"The teacher is {name} for " in error.message
    assert "3 x 32 x 32" in error.message
    assert setting in error.hint


def test_impossible_shapes_are_not_tried():
    for shapes in (
        {"linear.weight": (10**9, 64), "linear.bias": (10**9,)},
        {"conv1.weight": (16, 10**9, 3, 3)},
    ):
        error = _error(_shapes("resnet20") | shapes)
        assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
        assert "nearest known network is resnet20" in error.message


def test_a_head_of_one_output_fits_two_labels_and_no_others():
    result = recognise(_shapes("resnet20", 1), num_classes=2, input_size=(3, 32, 32))
    assert (result.architecture, result.is_binary) == ("resnet20", True)
    error = _error(_shapes("resnet20", 1), classes=10)
    assert error.code == ErrorCode.CLASS_COUNT_MISMATCH
    assert "one output" in error.message
    assert "10 labels" in error.message
    assert error.hint == "Give two labels, that of the negative class first."


@pytest.mark.parametrize("architecture", ["auto", "vgg11_bn"])
def test_the_error_names_the_number_of_inputs_of_the_head(architecture: str):
    shapes = _shapes("vgg11_bn") | {"classifier.weight": (10, 25088)}
    error = _error(shapes, architecture=architecture)
    assert "classifier.weight has 25088 inputs where vgg11_bn has 512" in error.message
    assert "labels" not in error.message + error.hint
    assert error.message.count("1 of another shape") == 1


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/resnet50", "timm/resnet34"])
def test_a_name_of_the_wrong_library_is_answered_with_the_right_one(name: str):
    error = _error(_shapes(name), architecture=name.partition("/")[2])
    assert error.code == ErrorCode.ARCHITECTURE_MISMATCH
    assert name in error.message
    assert error.hint == f"Give teacher.architecture: torchvision/{name.partition('/')[2]}"


def test_a_wrong_name_is_answered_with_the_right_one():
    error = _error(_shapes("wrn_16_2"), architecture="resnet20")
    assert error.code == ErrorCode.ARCHITECTURE_MISMATCH
    assert "missing" in error.message
    assert "unexpected" in error.message
    assert "but of wrn_16_2" in error.message
    assert error.hint == "Give teacher.architecture: wrn_16_2"


def _without_head(name: str) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in _shapes(name).items() if not key.startswith(("fc.", "classifier."))}


def test_a_strange_state_dict_is_described_with_the_nearest_network():
    head = {"fc.0.weight": (64, 512), "fc.0.bias": (64,), "fc.2.weight": (10, 64), "fc.2.bias": (10,)}
    shapes = _without_head("torchvision/resnet18") | head
    error = _error(shapes)
    assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
    assert f"{len(shapes)} tensors" in error.message
    assert "conv1.weight [64, 3, 7, 7]" in error.message
    assert "10 rows" in error.message
    assert "nearest known network is torchvision/resnet18" in error.message
    assert "2 missing (fc.weight, fc.bias); 4 unexpected (fc.0.weight, " in error.message
    assert "import torch" not in error.hint, "no change of names makes two layers of one"


@pytest.mark.parametrize(
    "name", ["torchvision/resnet18", "torchvision/vgg11_bn", "timm/mobilenetv3_small_050"]
)
@pytest.mark.parametrize("by_name", [False, True])
def test_the_error_says_that_a_backbone_has_no_head(name: str, by_name: bool):
    error = _error(_without_head(name), architecture=name if by_name else "auto")
    assert name.partition("/")[2] in error.message
    assert "The head is missing" in error.message
    assert error.message.count(" missing (") == 1


def test_missing_statistics_of_batch_norm_are_reported():
    shapes = {name: shape for name, shape in _shapes("resnet20").items() if "running" not in name}
    error = _error(shapes)
    assert "statistics of its BatchNorm layers are missing" in error.message
    assert "parameters alone" in error.hint


@pytest.mark.parametrize(
    ("names", "library"),
    [
        (("resnet.embedder.embedder.convolution.weight", "classifier.1.weight"), "Hugging Face transformers"),
        (
            ("vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"),
            "Hugging Face",
        ),
        (("convnext.embeddings.patch_embeddings.weight", "classifier.weight"), "Hugging Face transformers"),
        (("swin.embeddings.patch_embeddings.projection.weight",), "Hugging Face transformers"),
        (("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_fc.weight"), "efficientnet_pytorch"),
    ],
)
def test_the_error_names_the_library_of_the_tensors(names: tuple[str, ...], library: str):
    error = _error(dict.fromkeys(names, (8, 3, 3, 3)))
    assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
    assert library in error.message
    assert "nearest" not in error.message


def test_a_network_that_few_tensors_fit_is_not_called_the_nearest():
    shapes = {f"layer{i}.0.conv{j}.weight": (3, 3) for i in range(1, 4) for j in (1, 2)}
    shapes |= {"conv1.weight": (16, 3, 3, 3), "bn1.weight": (16,)}
    assert "nearest" not in _error(shapes).message


def test_a_layer_of_the_network_itself_is_never_left_out():
    shapes = _shapes("resnet20") | {"layer1.0.conv3.weight": (16, 16, 3, 3)}
    error = _error(shapes)
    assert "nearest known network is resnet20: 1 unexpected (layer1.0.conv3.weight)" in error.message
    assert "import torch" not in error.hint


def test_a_second_head_is_never_left_out():
    shapes = {f"0.{name}": shape for name, shape in _shapes("resnet20", 1000).items()}
    error = _error(shapes | {"1.weight": (10, 1000), "1.bias": (10,)})
    assert "import torch" not in error.hint


def test_names_of_an_old_densenet_are_understood():
    name = "torchvision/densenet121"
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): shape
        for key, shape in _shapes(name).items()
    }
    assert old.keys() != _shapes(name).keys()
    result = recognise(old, num_classes=10, input_size=(3, 32, 32))
    assert result.architecture == name
    assert set(result.renamed.values()) == set(_shapes(name))


def test_an_unknown_state_dict_is_described():
    error = _error({"a" * 500: (3, 4), "b": ()})
    assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
    assert "nearest" not in error.message
    assert len(error.message) < 400


def test_an_unknown_name_is_refused():
    with pytest.raises(SpecError, match="unknown_architecture"):
        recognise(_shapes("lenet5"), num_classes=10, input_size=(3, 32, 32), architecture="resnet21")


def test_the_last_linear_layer_gives_the_number_of_classes():
    for name in ("resnet20", "wrn_16_1", "vgg8_bn", "lenet5", "alexnet", "mobilenet_v2"):
        assert head_classes(_shapes(name, 17)) == 17
    assert head_classes({"conv.weight": (4, 3, 3, 3)}) is None
