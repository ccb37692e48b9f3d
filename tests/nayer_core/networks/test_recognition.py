"""The network behind a state dict: every one of ours, the libraries' through wrappers, and what is said
where none, several or another one fits.
"""

from collections.abc import Mapping

import pytest

from nayer_core.contract import catalog
from nayer_core.contract.errors import ErrorCode, SpecError, TeacherError
from nayer_core.networks import registry
from nayer_core.networks.recognition import head_classes, recognise

OWN = (*catalog.OWN_ARCHITECTURES, *catalog.WIDE_RESNETS, "wrn_22_3")
Shapes = Mapping[str, tuple[int, ...]]


def _shapes(
    name: str, classes: int = 10, size: tuple[int, int, int] = (3, 32, 32)
) -> dict[str, tuple[int, ...]]:
    return dict(registry.state_shapes(name, num_classes=classes, input_size=size))


def _error(shapes: Shapes, classes: int = 10, size=(3, 32, 32), architecture: str = "auto") -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        recognise(shapes, num_classes=classes, input_size=size, architecture=architecture)
    return caught.value


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("name", OWN)
def test_every_own_network_is_recognised(name: str, size: tuple[int, int, int]):
    found = recognise(_shapes(name, 7, size), num_classes=7, input_size=size)
    assert (found.architecture, found.candidates) == (name, (name,))
    assert all(old == new for old, new in found.renamed.items())


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
    found = recognise(_shapes(name, 100, size), num_classes=100, input_size=size)
    assert found.architecture == name
    assert name in found.candidates


def test_networks_that_compute_the_same_are_one():
    found = recognise(_shapes("timm/densenet121"), num_classes=10, input_size=(3, 32, 32))
    assert found.architecture == "torchvision/densenet121"
    assert found.candidates == ("torchvision/densenet121", "timm/densenet121")


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnetblur18", "timm/tf_efficientnet_b0"])
def test_networks_that_only_share_their_tensors_must_be_named(name: str):
    error = _error(_shapes(name))
    assert error.code == ErrorCode.ARCHITECTURE_AMBIGUOUS
    assert name in error.message
    assert "teacher.architecture" in error.hint
    named = recognise(_shapes(name), num_classes=10, input_size=(3, 32, 32), architecture=name)
    assert named.architecture == name


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
        found = recognise(shapes, num_classes=10, input_size=(3, 32, 32), architecture=architecture)
        assert found.architecture == name
        assert set(found.renamed) == set(shapes)
        assert set(found.renamed.values()) == set(_shapes(name))


def test_auxiliary_heads_are_left_out():
    shapes = _shapes("torchvision/inception_v3", 10, (3, 96, 96))
    shapes |= {"AuxLogits.conv0.conv.weight": (128, 768, 1, 1), "AuxLogits.fc.weight": (10, 768)}
    found = recognise(shapes, num_classes=10, input_size=(3, 96, 96))
    assert found.architecture == "torchvision/inception_v3"
    assert not any(name.startswith("AuxLogits") for name in found.renamed)


@pytest.mark.parametrize("architecture", ["auto", "resnet20"])
def test_another_count_of_labels_is_told(architecture: str):
    error = _error(_shapes("resnet20", 100), classes=10, architecture=architecture)
    assert error.code == ErrorCode.CLASS_COUNT_MISMATCH
    assert "100 classes" in error.message
    assert "10 labels" in error.message
    assert "Give 100 labels" in error.hint


@pytest.mark.parametrize(("name", "size"), [("resnet20", (1, 32, 32)), ("lenet5", (3, 64, 64))])
def test_other_images_are_told(name: str, size: tuple[int, int, int]):
    error = _error(_shapes(name, 10, size))
    assert error.code == ErrorCode.ARCHITECTURE_MISMATCH
    assert f"is {name} for other images than 3 x 32 x 32" in error.message
    assert "teacher.input_size" in error.hint


def test_a_wrong_name_is_answered_with_the_right_one():
    error = _error(_shapes("wrn_16_2"), architecture="resnet20")
    assert error.code == ErrorCode.ARCHITECTURE_MISMATCH
    assert "missing" in error.message
    assert "unexpected" in error.message
    assert "They fit wrn_16_2" in error.hint


def test_a_strange_state_dict_is_described_with_the_nearest_network():
    shapes = _shapes("torchvision/resnet18")
    shapes["fc.1.weight"], shapes["fc.1.bias"] = shapes.pop("fc.weight"), shapes.pop("fc.bias")
    error = _error(shapes)
    assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
    assert f"{len(shapes)} tensors" in error.message
    assert "conv1.weight [64, 3, 7, 7]" in error.message
    assert "10 rows" in error.message
    assert "nearest known network is t" in error.message
    assert "2 missing (fc.weight, fc.bias); 2 unexpected (fc.1.weight, fc.1.bias)" in error.message


def test_a_state_dict_like_nothing_is_described_too():
    error = _error({"a" * 500: (3, 4), "b": ()})
    assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
    assert "nearest" not in error.message
    assert len(error.message) < 400


def test_an_unknown_name_is_refused():
    with pytest.raises(SpecError, match="unknown_architecture"):
        recognise(_shapes("lenet5"), num_classes=10, input_size=(3, 32, 32), architecture="resnet21")


def test_the_last_linear_layer_tells_the_classes():
    for name in ("resnet20", "wrn_16_1", "vgg8_bn", "lenet5", "alexnet", "mobilenet_v2"):
        assert head_classes(_shapes(name, 17)) == 17
    assert head_classes({"conv.weight": (4, 3, 3, 3)}) is None
