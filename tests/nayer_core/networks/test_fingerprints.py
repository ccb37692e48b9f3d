"""The index of the libraries' networks: that it is whole, and how networks are found to be equal."""

import gzip
import importlib.resources
import json

import pytest

from nayer_core.networks import fingerprints, registry


def test_the_index_holds_together():
    packed = importlib.resources.files("nayer_core.contract").joinpath("fingerprints.json.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # no time of making: the same index is the same bytes
    document = json.loads(gzip.decompress(packed))
    networks = len(document["networks"])
    positions = [position for _, _, *group in document["names"].values() for position in group]
    assert sorted(positions) == list(range(networks))
    assert set(document["versions"]) == {"torchvision", "timm"}
    index = fingerprints.load_index()
    assert max(len(group) for group in index.by_names.values()) < 100
    for name, same in index.equal.items():
        assert name in same
        assert len(same) > 1


@pytest.mark.parametrize("name", ["torchvision/resnet34", "timm/resnet34", "timm/vit_tiny_patch16_224"])
def test_the_index_knows_the_installed_networks(name: str):
    shapes = registry.state_shapes(name, num_classes=3, input_size=(1, 64, 64))
    index = fingerprints.load_index()
    assert name in index.by_names[fingerprints.names_digest(shapes)]
    assert (len(shapes), name) in index.by_roots[fingerprints.roots_digest(shapes)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("timm/vit_base_patch16_224", "timm/vit_base_patch16_384"),
        ("timm/vit_base_patch16_224", "timm/deit_base_patch16_224"),
        ("timm/beit_base_patch16_224", "timm/beitv2_base_patch16_224"),
        ("torchvision/resnet50", "timm/resnet50"),
        ("torchvision/wide_resnet101_2", "timm/wide_resnet101_2"),
    ],
)
def test_the_index_knows_one_network_under_several_names(first: str, second: str):
    assert second in fingerprints.load_index().equal[first]


def test_counters_and_order_do_not_change_a_digest():
    names = ["conv1.weight", "bn1.weight", "bn1.num_batches_tracked"]
    assert fingerprints.names_digest(names) == fingerprints.names_digest(names[1::-1])
    assert fingerprints.names_digest(names) != fingerprints.names_digest(names[:1])


def test_the_index_groups_networks_that_compute_the_same():
    group = ["torchvision/resnet18", "timm/resnet18", "timm/resnetblur18", "timm/resnet50"]
    document = fingerprints.make_index(group)
    order = list(document["networks"])
    equal = [{order[position] for position in same} for same in document["equal"]]
    assert equal == [{"torchvision/resnet18", "timm/resnet18"}]
    assert document["networks"]["torchvision/resnet18"] == 11_689_512


def test_another_epsilon_or_padding_is_another_network():
    assert not fingerprints.compute_the_same("timm/efficientnet_b0", "timm/tf_efficientnet_b0", (3, 64, 64))
