"""A picture of the synthetic images that the student learned from, by class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nayer_core.images.memory_bank import MemoryBank

MAX_CLASSES = 20
IMAGES_A_CLASS = 10
MIN_TILE = 48  # pixels on the screen; small images are enlarged by a whole factor
MARGIN = 4
LABEL_WIDTH = 140
LABEL_LENGTH = 20  # characters that fit


def write_samples(bank: MemoryBank, class_names: Sequence[str], path: Path) -> None:
    """Draw the newest images of each class, a row each, at most 20 classes.

    Args:
        bank: where the images are.
        class_names: in the order of the teacher's outputs.
        path: PNG file to write.
    """
    height, width = bank.images.shape[1:3]
    factor = max(1, -(-MIN_TILE // max(height, width)))
    tile = (width * factor, height * factor)
    rows = min(len(class_names), MAX_CLASSES)
    size = (
        LABEL_WIDTH + IMAGES_A_CLASS * (tile[0] + MARGIN) + MARGIN,
        rows * (tile[1] + MARGIN) + MARGIN,
    )
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for index in range(rows):
        y = MARGIN + index * (tile[1] + MARGIN)
        draw.text((MARGIN, y + tile[1] // 2), class_names[index][:LABEL_LENGTH], "black", font, anchor="lm")
        for place, image in enumerate(_newest(bank, index)):
            x = LABEL_WIDTH + place * (tile[0] + MARGIN)
            sheet.paste(_picture(image).resize(tile, Image.Resampling.NEAREST), (x, y))
    sheet.save(path)


def _newest(bank: MemoryBank, class_index: int) -> Tensor:
    order = torch.arange(bank.added - len(bank), bank.added, device=bank.labels.device) % bank.capacity
    slots = order[bank.labels[order] == class_index][-IMAGES_A_CLASS:]
    return bank.images[slots].cpu()


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.squeeze(2).numpy() if image.shape[2] == 1 else image.numpy())
