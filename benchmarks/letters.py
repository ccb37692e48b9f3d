"""Letters in fonts: images of any size with 26 named classes, and teachers trained on them.

    python -m benchmarks.letters [ARCHITECTURE] [--side 96] [--epochs 3]

Fonts are those of this machine (Debian's `fonts-*` packages). Each image shows one capital letter at a
random place, size and angle, in random colours over a random texture, with noise. A sixth of the font
families is held out: accuracy is measured on letters of fonts that no teacher has seen. Sets and teachers
are kept in a cache folder (`XDG_CACHE_HOME`), outside the project.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from torch import nn

from examples.mnist_teacher import computes_bf16
from nayer_core.hardware.allocator import keep_freed_memory
from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.measuring.evaluation import EvaluationSet, predict, share_equal
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

LABELS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as most teachers of this size use
VIEW = Augmentation(torch.tensor(MEAN), torch.tensor(STD), crop_padding=0, flip=False)
FONTS = Path("/usr/share/fonts")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nayer-benchmarks"
LEAST_FAMILIES = 60
MOST_STYLES = 3  # files of a family, so that no family dominates
HELD_OUT = 6  # one family in so many
TRAINING_IMAGES, HELD_OUT_IMAGES = 18_000, 2_600
BATCH_SIZE = 64
# Families whose letters are pictures, symbols, other scripts, or the same shapes as another family's.
_NO_LETTERS = re.compile(
    r"BRK|^Px |Dingbat|D050000L|Symbol|Unidings|Musica|Ornament|Initials|Keyboard|Barcode|DSEG|Denemo|feta"
    r"|cm(ex|mi|sy)10|dsrom|esint|eufm|msam|msbm|rsfs|stmary|Stroke|Sample|Klingon|pIqaD|Futhark|Maya|Gardiner"
    r"|Hieroglyph|Akkadian|Assyrian|Mono(id|isome) |Abecedario|Winks|Fantuwua|Damase|Redacted|LastResort"
)

Split = str  # "training" or "held_out"


@cache
def families() -> dict[str, list[Path]]:
    """Font files with all capital letters, by family; at most three styles of each."""
    by_family: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(FONTS.rglob("*.[to]tf")):
        with TTFont(path, lazy=True) as font:
            if "name" not in font or "cmap" not in font:
                continue
            name = str(font["name"].getBestFamilyName())
            has_letters = all(ord(label) in (font.getBestCmap() or {}) for label in LABELS)
        if has_letters and not _NO_LETTERS.search(name):
            by_family[name].append(path)
    return {
        name: paths[:: max(1, len(paths) // MOST_STYLES)][:MOST_STYLES] for name, paths in by_family.items()
    }


def require_fonts() -> None:
    """End the program where too few fonts are installed."""
    if len(families()) < LEAST_FAMILIES:
        sys.exit(
            f"Only {len(families())} font families with capital letters are in {FONTS}; this benchmark needs "
            f"{LEAST_FAMILIES}. Install some, such as Debian's fonts-recommended and fonts-adf-*."
        )


def fonts_of(split: Split) -> list[Path]:
    """Font files of one side of the split; a family is on one side, whatever else is installed."""
    files = []
    for name, paths in families().items():
        is_held_out = hashlib.sha256(name.encode()).digest()[0] % HELD_OUT == 0
        files += paths if is_held_out == (split == "held_out") else []
    return files


def images_of(split: Split, side: int) -> EvaluationSet:
    """Rendered letters, (N, side, side, 3) uint8, and their classes; rendered once and then kept.

    Args:
        split: `training` or `held_out`.
        side: height and width in pixels.
    """
    require_fonts()
    count = TRAINING_IMAGES if split == "training" else HELD_OUT_IMAGES
    path = CACHE / f"letters_{split}_{side}.safetensors"
    if not path.exists():
        rng = np.random.default_rng(0 if split == "training" else 1)
        labels = np.arange(count) % len(LABELS)
        fonts = fonts_of(split)
        images = np.stack(
            [_render(LABELS[label], fonts[rng.integers(len(fonts))], side, rng) for label in labels]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}, path)
    return EvaluationSet(**load_file(path))


def _render(letter: str, font: Path, side: int, rng: np.random.Generator) -> np.ndarray:
    """One letter on a texture, (side, side, 3) uint8."""
    mask = np.asarray(_letter_mask(letter, font, side, rng), dtype=np.float32)[..., None] / 255
    background, ink = rng.uniform(0, 255, (2, 3))
    while np.abs(background.mean() - ink.mean()) < 70:  # grey levels: legible
        background, ink = rng.uniform(0, 255, (2, 3))
    cells = int(rng.integers(2, 9))
    texture = np.stack([background, ink])[:, None, None] + rng.normal(
        0, rng.uniform(5, 35), (2, cells, cells, 3)
    )
    layers = [_smooth(layer, side) for layer in texture]
    image = layers[0] * (1 - mask) + layers[1] * mask + rng.normal(0, rng.uniform(0, 12), (side, side, 3))
    return image.clip(0, 255).astype(np.uint8)


def _letter_mask(letter: str, font: Path, side: int, rng: np.random.Generator) -> Image.Image:
    """The letter in white on black: its height, place and angle are random."""
    height = rng.uniform(0.45, 0.8) * side
    face = ImageFont.truetype(str(font), int(height * 1.3))
    left, top, right, bottom = face.getbbox(letter)
    factor = min(height / max(1, bottom - top), 0.9 * side / max(1, right - left))
    face = ImageFont.truetype(str(font), max(4, int(height * 1.3 * factor)))
    left, top, right, bottom = face.getbbox(letter)
    free = [(side - extent) / 2 for extent in (right - left, bottom - top)]
    x, y = (room + rng.uniform(-0.5, 0.5) * max(0.0, room) for room in free)
    canvas = Image.new("L", (side, side))
    ImageDraw.Draw(canvas).text((x - left, y - top), letter, fill=255, font=face)
    return canvas.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)


def _smooth(cells: np.ndarray, side: int) -> np.ndarray:
    """(n, n, 3) -> (side, side, 3) float32, smooth."""
    tensor = torch.from_numpy(cells).permute(2, 0, 1)[None].float()
    return F.interpolate(tensor, (side, side), mode="bilinear")[0].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class LetterTeacher:
    """A network trained on letters.

    Args:
        architecture: its name in the registry.
        side: of its images, in pixels.
        epochs: passes over the training images.
        learning_rate: AdamW's, at the peak.
    """

    architecture: str = "torchvision/resnet18"
    side: int = 96
    epochs: int = 3
    learning_rate: float = 2e-3

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (3, self.side, self.side)

    def load(self) -> nn.Module:
        """The network, frozen; trained first if it is not in the cache."""
        network = build(self.architecture, num_classes=len(LABELS), input_size=self.input_size)
        name = f"{self.architecture.replace('/', '_')}_{self.side}_{self.epochs}_{self.learning_rate}"
        path = CACHE / f"letters_teacher_{name}.safetensors"
        if not path.exists():
            state = self._train().state_dict()
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        network.load_state_dict(load_file(path))
        return freeze(network).to(memory_format=torch.channels_last)

    def _train(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        training = images_of("training", self.side)
        network = build(self.architecture, num_classes=len(LABELS), input_size=self.input_size)
        network = network.to(memory_format=torch.channels_last).train()
        steps = len(training.labels) // BATCH_SIZE
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.epochs * steps, pct_start=0.2
        )
        for epoch in range(self.epochs):
            losses, start = [], time.monotonic()
            for batch in torch.randperm(len(training.labels))[: steps * BATCH_SIZE].split(BATCH_SIZE):
                with torch.autocast("cpu", torch.bfloat16, enabled=computes_bf16()):
                    logits = network(VIEW.normalize(training.images[batch]))
                    loss = F.cross_entropy(logits, training.labels[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
            seconds = time.monotonic() - start
            print(
                f"epoch {epoch + 1}  loss {np.mean(losses):.3f}  {seconds:.0f} s", file=sys.stderr, flush=True
            )
        return network.eval()


def accuracy(network: nn.Module, images: EvaluationSet) -> float:
    """Share of the letters that a network in eval mode names rightly."""
    exact = Arithmetic(torch.device("cpu"), torch.float32)
    return share_equal(predict(network, images.images, VIEW, exact), images.labels)


def main() -> None:
    """Render, train and measure one teacher."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("architecture", nargs="?", default=LetterTeacher.architecture)
    parser.add_argument("--side", type=int, default=LetterTeacher.side)
    parser.add_argument("--epochs", type=int, default=LetterTeacher.epochs)
    parser.add_argument("--learning-rate", type=float, default=LetterTeacher.learning_rate)
    args = parser.parse_args()
    keep_freed_memory()
    teacher = LetterTeacher(args.architecture, args.side, args.epochs, args.learning_rate)
    network, held_out = teacher.load(), images_of("held_out", args.side)
    print(
        f"{args.architecture}, {args.side} pixels: {accuracy(network, held_out):.4f} of "
        f"{len(held_out.labels)} letters in {len(fonts_of('held_out'))} fonts of held-out families "
        f"(trained on {len(fonts_of('training'))})"
    )


if __name__ == "__main__":
    main()
