"""The classification networks of torchvision and timm, untrained.

Nothing is downloaded: weights are never requested, and a name must be in the list of the installed library,
so that no name can point to a hub.
"""

from typing import Any, cast

import timm
import torchvision
from torch import nn

InputSize = tuple[int, int, int]

_RGB = 3

# Heads that only training uses; without them every network maps images to one tensor of logits.
_WITHOUT_AUXILIARY_HEADS = {"aux_logits": False, "init_weights": True}


def list_torchvision() -> list[str]:
    """Names of torchvision's classification networks, without a prefix."""
    return sorted(torchvision.models.list_models(module=torchvision.models))


def list_timm() -> list[str]:
    """Names of timm's networks, without a prefix."""
    return sorted(timm.list_models())


def build_torchvision(name: str, num_classes: int, input_size: InputSize) -> nn.Module:
    """Build torchvision's `name`; the first convolution is replaced where images are not RGB.

    Raises:
        KeyError: there is no such network.
        ValueError, AssertionError, RuntimeError: the network has no form for this input size.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise KeyError(name)
    channels, height, width = input_size
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        options |= _WITHOUT_AUXILIARY_HEADS
    elif name.startswith("vit_"):
        options["image_size"] = _square_side(height, width)
    elif name.startswith("maxvit"):
        options["input_size"] = (height, width)
    network: nn.Module = torchvision.models.get_model(name, **options)
    if channels != _RGB:
        _replace_stem(network, channels)
    return network


def build_timm(name: str, num_classes: int, input_size: InputSize) -> nn.Module:
    """Build timm's `name` for these classes, channels and, where it depends on it, image size.

    Raises:
        KeyError: there is no such network.
        ValueError, AssertionError, RuntimeError, TypeError: it has no form for this input size.
    """
    if "." in name or not timm.is_model(name):
        raise KeyError(name)
    options: dict[str, Any] = {"num_classes": num_classes}
    if input_size[0] != _RGB:
        options["in_chans"] = input_size[0]
    made_for = timm.get_pretrained_cfg(name)
    if made_for and made_for.fixed_input_size and made_for.input_size[1:] != input_size[1:]:
        options["img_size"] = input_size[1:]
    network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network


def default_input_size(architecture: str) -> InputSize:
    """Return the library's own (channels, height, width) for `torchvision/...` or `timm/...`."""
    library, name = architecture.split("/", 1)
    if library == "timm":
        made_for = timm.get_pretrained_cfg(name)
        return (_RGB, 224, 224) if made_for is None else made_for.input_size
    return (_RGB, 299, 299) if name == "inception_v3" else (_RGB, 224, 224)


def _square_side(height: int, width: int) -> int:
    if height != width:
        raise ValueError(f"images must be square, not {height} x {width}")
    return height


def _replace_stem(network: nn.Module, channels: int) -> None:
    """Put a new first convolution for `channels` in place; torchvision has no option for it."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == _RGB:
            parent_path, _, attribute = path.rpartition(".")
            stem = nn.Conv2d(
                channels,
                module.out_channels,
                kernel_size=cast(tuple[int, int], module.kernel_size),
                stride=cast(tuple[int, int], module.stride),
                padding=cast(tuple[int, int], module.padding),
                bias=module.bias is not None,
            )
            setattr(network.get_submodule(parent_path), attribute, stem)
            return
    raise ValueError(f"no convolution of {_RGB} channels to replace for {channels}")
