"""Every network by name: published sizes, any images, and errors that say what to take."""

import pytest
import torch
from torch import nn

from nayer_core.contract import catalog
from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.networks import libraries, registry

OWN = (*catalog.OWN_ARCHITECTURES, *catalog.WIDE_RESNETS)
SMALL = tuple(name for name in OWN if name not in ("resnet110", "wrn_28_10", "wrn_40_4", "resnet50"))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # He et al. 2016, Table 6
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet44", 0.66),
        ("resnet56", 0.85),
        ("resnet110", 1.7),
        # Zagoruyko and Komodakis 2016, Table 5 and the distillation literature
        ("wrn_40_1", 0.6),
        ("wrn_40_2", 2.2),
        ("wrn_40_4", 8.9),
        ("wrn_28_10", 36.5),
        ("wrn_16_1", 0.175),
        ("wrn_16_2", 0.7),
        # Usual counts at 10 classes
        ("resnet18", 11.17),
        ("resnet34", 21.28),
        ("resnet50", 23.52),
        ("vgg8_bn", 3.9),
        ("vgg11_bn", 9.23),
        ("vgg13_bn", 9.42),
        ("vgg16_bn", 14.73),
        ("vgg19_bn", 20.04),
        ("mobilenet_v2", 2.24),
        ("lenet5", 0.062),
    ],
)
def test_parameters_are_those_of_the_publication(name: str, millions: float):
    network = registry.build_on_meta(name, num_classes=10, input_size=(3, 32, 32))
    digits = len(str(millions).partition(".")[2])
    assert round(registry.count_parameters(network) / 1e6, digits) == millions


@pytest.mark.parametrize("input_size", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 33, 47)])
@pytest.mark.parametrize("name", SMALL)
def test_any_images_become_logits(name: str, input_size: tuple[int, int, int]):
    network = registry.build(name, num_classes=7, input_size=input_size)
    logits = network(torch.randn(2, *input_size))
    assert logits.shape == (2, 7)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("name", SMALL)
def test_untrained_logits_are_small_and_every_weight_learns(name: str):
    torch.manual_seed(0)
    network = registry.build(name, num_classes=5, input_size=(3, 16, 16))
    logits = network(torch.randn(4, 3, 16, 16))
    assert logits.abs().max() < 5
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_the_same_seed_draws_the_same_network():
    def weights() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return registry.build("wrn_10_1", num_classes=3, input_size=(1, 8, 8)).state_dict()

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)


def test_macs_are_those_of_the_papers():
    # ResNet-20, summed by hand over its convolutions at 32, 16 and 8 pixels.
    convolution = 9 * 32 * 32 * (3 * 16 + 6 * 16 * 16)
    convolution += 9 * 16 * 16 * (16 * 32 + 5 * 32 * 32) + 9 * 8 * 8 * (32 * 64 + 5 * 64 * 64)
    macs = registry.macs_per_image("resnet20", num_classes=10, input_size=(3, 32, 32))
    assert macs == convolution + 64 * 10


@pytest.mark.parametrize(
    ("name", "input_size"),
    [
        ("torchvision/resnet18", (1, 28, 28)),
        ("torchvision/vit_b_16", (3, 32, 32)),
        ("torchvision/regnet_x_400mf", (1, 64, 64)),
        ("torchvision/inception_v3", (3, 96, 96)),
        ("timm/vit_tiny_patch16_224", (3, 64, 64)),
        ("timm/mobilenetv3_small_100", (1, 28, 28)),
    ],
)
def test_library_networks_take_classes_channels_and_size(name: str, input_size: tuple[int, int, int]):
    network = registry.build(name, num_classes=7, input_size=input_size)
    assert network.training
    assert network(torch.randn(2, *input_size)).shape == (2, 7)


@pytest.mark.parametrize(
    "name",
    ["resnet21", "wrn_17_2", "torchvision/nothing", "timm/hf-hub:a/b", "timm/resnet50.a1_in1k", "x/y", ""],
)
def test_an_unknown_name_is_refused(name: str):
    with pytest.raises(SpecError) as excinfo:
        registry.build(name, num_classes=10, input_size=(3, 32, 32))
    assert excinfo.value.code == ErrorCode.UNKNOWN_ARCHITECTURE


@pytest.mark.parametrize(
    ("name", "input_size"),
    [
        ("torchvision/vgg11", (3, 28, 28)),
        ("torchvision/vit_b_16", (3, 30, 30)),
        ("torchvision/maxvit_t", (3, 50, 50)),
        ("torchvision/vit_b_16", (3, 32, 64)),
        ("timm/vit_tiny_patch16_224", (3, 8, 8)),
    ],
)
def test_images_that_a_network_cannot_take_are_refused(name: str, input_size: tuple[int, int, int]):
    with pytest.raises(SpecError) as excinfo:
        registry.build(name, num_classes=10, input_size=input_size)
    assert excinfo.value.code == ErrorCode.INPUT_SIZE_UNSUPPORTED
    assert " x ".join(map(str, input_size)) in excinfo.value.message


def test_the_catalog_names_what_the_installed_libraries_have():
    here = {f"torchvision/{name}" for name in libraries.list_torchvision()}
    here |= {f"timm/{name}" for name in libraries.list_timm()}
    names = set(catalog.library_architectures())
    assert names <= here
    assert len(names) > 1400


def test_every_own_name_of_the_catalog_can_be_built():
    for name in OWN:
        assert catalog.require_architecture(name) == name
        registry.build_on_meta(name, num_classes=2, input_size=(3, 32, 32))


@pytest.mark.parametrize("position", range(0, 1400, 200))
def test_library_names_of_the_catalog_can_be_built(position: int):
    name = catalog.library_architectures()[position]
    size = libraries.default_input_size(name)
    assert registry.macs_per_image(name, num_classes=10, input_size=size) > 0
