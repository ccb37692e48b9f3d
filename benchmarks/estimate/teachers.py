"""The teachers whose students are measured: with BatchNorm and without, good and weak, 28 and 32 pixels."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks import cifar10
from benchmarks.estimate import images, ready_made
from benchmarks.estimate.images import RealImages
from benchmarks.letters import CACHE
from examples.mnist_teacher import computes_bf16
from nayer_core.images.augmentation import Augmentation
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

BATCH_SIZE = 64


@dataclass(frozen=True)
class TrainedTeacher:
    """A trained network and the images it was trained for."""

    network: nn.Module
    images: RealImages


@dataclass(frozen=True)
class Recipe:
    """How a teacher is trained.

    Args:
        images: gives the images.
        architecture: of the registry.
        epochs: passes over the training images.
        rate: the highest learning rate of one rise and fall.
        adam: whether AdamW trains it, as transformers need; else SGD with momentum.
    """

    images: Callable[[], RealImages]
    architecture: str
    epochs: int
    rate: float
    adam: bool = False

    def build(self) -> nn.Module:
        """The network with random weights."""
        data = self.images()
        return build(self.architecture, num_classes=len(data.labels), input_size=data.size)

    def train(self) -> nn.Module:
        """Train the network; the same weights on one kind of machine."""
        torch.manual_seed(0)
        network = self.build()
        _train(network, self.images(), self)
        return network


RECIPES: Mapping[str, Recipe] = {
    "fashion-lenet": Recipe(images.fashion, "lenet5", 15, 0.02),
    "mnist-resnet": Recipe(images.mnist, "timm/test_resnet", 12, 0.1),
    "mnist-lenet": Recipe(images.mnist, "lenet5", 20, 0.02),
    "fashion-vit": Recipe(lambda: images.as_rgb(images.fashion(), 32), "timm/test_vit", 15, 1e-3, adam=True),
    "cifar-weak": Recipe(images.cifar, "wrn_16_1", 60, 0.1),
    "letters-lenet": Recipe(images.letters, "lenet5", 6, 0.02),
    "fashion-resnet": Recipe(images.fashion, "resnet20", 8, 0.1),
    "letters-resnet": Recipe(images.letters, "wrn_16_1", 2, 0.1),
    "digits-efficientnet": Recipe(images.small_digits, "timm/test_efficientnet", 40, 0.05),
}


def _published_cifar() -> TrainedTeacher:
    data = images.cifar()
    return TrainedTeacher(cifar10.load_teacher().cpu(), data)


READY_MADE: Mapping[str, Callable[[], TrainedTeacher]] = {
    "cifar-resnet": _published_cifar,
    "mnist-stranger": lambda: TrainedTeacher(ready_made.mnist_network(), images.mnist()),
}
NAMES = (*RECIPES, *READY_MADE)


@functools.cache
def load(name: str) -> TrainedTeacher:
    """Read a teacher; it is trained first if it is not in the cache.

    Raises:
        DataAbsent: its images or its weights are not on this machine.
    """
    if name in READY_MADE:
        return READY_MADE[name]()
    data, path = RECIPES[name].images(), CACHE / f"estimate_teacher_{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = RECIPES[name].train().state_dict()
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    network = RECIPES[name].build()
    network.load_state_dict(load_file(path))
    return TrainedTeacher(freeze(network.eval()).to(memory_format=torch.channels_last), data)


def _train(network: nn.Module, data: RealImages, recipe: Recipe) -> None:
    """Train on shifted images, mirrored where that keeps the class."""
    rng, training = torch.Generator().manual_seed(0), data.training
    augment = Augmentation(torch.tensor(data.mean), torch.tensor(data.std), 2, data.flip)
    network.to(memory_format=torch.channels_last).train()
    optimizer = _optimizer(network, recipe)
    steps = len(training.labels) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * steps)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(training.labels), generator=rng)[: steps * BATCH_SIZE]
        for batch in order.split(BATCH_SIZE):
            inputs = augment(training.images[batch], augment.draw(len(batch), rng))
            _step(network, inputs, training.labels[batch], optimizer)
            schedule.step()


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.adam:
        return torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=0.05)
    return torch.optim.SGD(network.parameters(), recipe.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


def _step(network: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_bf16()):
        loss = nn.functional.cross_entropy(network(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
