"""Every network by name: our own families, `torchvision/<name>` and `timm/<name>`.

Networks are untrained, and nothing is downloaded. Shapes of weights, parameters and multiplications are
counted on torch's meta device, which holds no numbers: a tenth of a second for any network.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from nayer_core.contract import catalog
from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.networks.alexnet import AlexNet
from nayer_core.networks.cifar_resnet import CifarResNet
from nayer_core.networks.lenet import LeNet5
from nayer_core.networks.mobilenet import MobileNetV2
from nayer_core.networks.resnet import ResNet
from nayer_core.networks.vgg import VGG
from nayer_core.networks.wide_resnet import WideResNet

InputSize = tuple[int, int, int]  # (channels, height, width)
Shapes = Mapping[str, tuple[int, ...]]

_Builder = Callable[[int, InputSize], nn.Module]


def _depth(name: str) -> int:
    return int("".join(character for character in name if character.isdigit()))


def _cifar_resnet(name: str) -> _Builder:
    return lambda num_classes, size: CifarResNet(_depth(name), num_classes, size[0])


def _resnet(name: str) -> _Builder:
    return lambda num_classes, size: ResNet(_depth(name), num_classes, size[0])


def _vgg(name: str) -> _Builder:
    return lambda num_classes, size: VGG(_depth(name), num_classes, size[0])


_OWN: Mapping[str, _Builder] = MappingProxyType(
    {
        **{name: _cifar_resnet(name) for name in catalog.CIFAR_RESNETS},
        **{name: _resnet(name) for name in catalog.RESNETS},
        **{name: _vgg(name) for name in catalog.VGGS},
        "lenet5": LeNet5,
        "alexnet": AlexNet,
        "mobilenet_v2": lambda num_classes, size: MobileNetV2(num_classes, size[0]),
    }
)


# Pixels up to which a size is tried on the network itself: 1024 x 1024 would take 11 s and 1.9 GB for a
# ResNet-18. Larger sizes are tried without numbers: the time does not grow, but torch's compiler is loaded.
_SMALL_IMAGE = 256 * 256


def build(name: str, *, num_classes: int, input_size: InputSize) -> nn.Module:
    """Build the untrained network `name`, in training mode, on torch's default device.

    Weights are drawn from torch's global generator: seed it for the same network twice.

    Args:
        name: a name of GET /architectures, or any `wrn_{6n + 4}_{k}`.
        num_classes: outputs of the last layer.
        input_size: (channels, height, width) in pixels.

    Raises:
        SpecError: `unknown_architecture` or `input_size_unsupported`.
    """
    network = _construct(name, num_classes, input_size).eval()
    if math.prod(input_size[1:]) <= _SMALL_IMAGE:
        _check_size(network, torch.zeros(1, *input_size), name, input_size)
    else:
        empty = build_on_meta(name, num_classes=num_classes, input_size=input_size).eval()
        _check_size(empty, torch.empty(1, *input_size, device="meta"), name, input_size)
    return network.train()


def takes(name: str, input_size: InputSize) -> bool:
    """Whether the network `name` can be run on images of (channels, height, width); tried without numbers.

    Raises:
        SpecError: `unknown_architecture`.
    """
    try:
        network = build_on_meta(name, num_classes=2, input_size=input_size).eval()
        _check_size(network, torch.empty(1, *input_size, device="meta"), name, input_size)
    except SpecError as error:
        if error.code == ErrorCode.UNKNOWN_ARCHITECTURE:
            raise
        return False
    return True


def _check_size(network: nn.Module, image: Tensor, name: str, input_size: InputSize) -> None:
    with torch.no_grad(), _refuse_size(name, input_size):
        network(image)


def count_parameters(network: nn.Module) -> int:
    """Count the parameters of `network`, without buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


@functools.lru_cache(maxsize=256)
def macs_per_image(name: str, *, num_classes: int, input_size: InputSize) -> int:
    """Multiply-accumulates of one forward pass for one image, by a pass without numbers.

    Args:
        name: a name of GET /architectures, or any `wrn_{6n + 4}_{k}`.
        num_classes: outputs of the last layer.
        input_size: (channels, height, width) in pixels.

    Raises:
        SpecError: `unknown_architecture` or `input_size_unsupported`.
    """
    network = build_on_meta(name, num_classes=num_classes, input_size=input_size).eval()
    with _refuse_size(name, input_size):
        return count_macs(network, torch.empty(1, *input_size, device="meta"))


def count_macs(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of one forward pass.

    Args:
        network: on the device of `inputs`, which may be "meta".
        inputs: of the forward pass.
    """
    # Imported here: it takes a second and 80 MB, and a run counts nothing.
    from torch.utils.flop_counter import FlopCounterMode

    network.requires_grad_(False)  # the counter would hook weights that are inputs of a module
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


@functools.lru_cache(maxsize=256)
def state_shapes(name: str, *, num_classes: int, input_size: InputSize) -> Shapes:
    """Names and shapes of the state dict of `name`, in its order.

    Raises:
        SpecError: `unknown_architecture` or `input_size_unsupported`.
    """
    network = build_on_meta(name, num_classes=num_classes, input_size=input_size)
    return MappingProxyType({key: tuple(tensor.shape) for key, tensor in network.state_dict().items()})


def build_on_meta(name: str, *, num_classes: int, input_size: InputSize) -> nn.Module:
    """Build `name` on the meta device, without numbers: fast, and small whatever its size.

    Raises:
        SpecError: `unknown_architecture` or `input_size_unsupported`.
    """
    try:
        with torch.device("meta"):
            return _construct(name, num_classes, input_size)
    except NotImplementedError:
        # torchvision's RegNet computes its widths with tensors, which need numbers.
        with _parameters_on_meta():
            return _construct(name, num_classes, input_size).to("meta")


def _construct(name: str, num_classes: int, input_size: InputSize) -> nn.Module:
    if name in _OWN:
        return _OWN[name](num_classes, input_size)
    if catalog.is_wide_resnet(name):
        _, depth, width = name.split("_")
        return WideResNet(int(depth), int(width), num_classes, input_size[0])
    # torchvision and timm take seconds to import, and most jobs need neither.
    from nayer_core.networks import libraries

    library, _, short_name = name.partition("/")
    builders = {"torchvision": libraries.build_torchvision, "timm": libraries.build_timm}
    if library not in builders:
        raise _unknown(name)
    with warnings.catch_warnings(), _refuse_size(name, input_size):
        warnings.simplefilter("ignore")  # addressed to the libraries' own users
        try:
            return builders[library](short_name, num_classes, input_size)
        except KeyError:
            raise _unknown(name) from None


def _unknown(name: str) -> SpecError:
    try:
        catalog.require_architecture(name)
    except PydanticCustomError as error:
        return SpecError(
            ErrorCode.UNKNOWN_ARCHITECTURE, f"{error.message()}.", "Take a name of GET /architectures."
        )
    return SpecError(
        ErrorCode.UNKNOWN_ARCHITECTURE,
        f"{name} is not in the installed version of its library.",
        "Take a name that the installed library lists.",
    )


@contextlib.contextmanager
def _refuse_size(name: str, input_size: InputSize) -> Iterator[None]:
    """Turn a network's error about images that do not fit into one that a client understands."""
    try:
        yield
    except NotImplementedError:
        raise  # says nothing about the images: an operation without a meta form
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        channels, height, width = input_size
        raise SpecError(
            ErrorCode.INPUT_SIZE_UNSUPPORTED,
            f"{name} cannot take images of {channels} x {height} x {width}.",
            "Take another architecture, or the image size it was made for.",
        ) from error


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """During the block, move each parameter to the meta device when a module gets it."""

    def to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    # torch's annotation forgets that a hook may return another parameter, which its text allows.
    hook = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()
