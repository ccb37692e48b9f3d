"""The memory bank as a folder of PNG files, read again for every batch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

LOADER_PROCESSES = 4


class ImageFolder(Dataset[Tensor]):
    """All PNG files below a folder, augmented one by one.

    Args:
        root: walked when this is made.
        mean: what the teacher's training subtracted, by channel.
        std: what it divided by.
        size: side of the images in pixels.
    """

    def __init__(self, root: Path, mean: tuple[float, ...], std: tuple[float, ...], size: int):
        self.paths = sorted(root.rglob("*.png"))
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            augmented: Tensor = self.transform(image.convert("RGB"))
        return augmented


def add(root: Path, images: Tensor, round_index: int) -> None:
    """Write (B, 3, H, W) images in [0, 1] as files."""
    pixels = (images.detach().cpu().numpy() * 255).clip(0, 255).astype(np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(root / f"{round_index}-{index}.png")


def endless(folder: ImageFolder, batch_size: int, processes: int) -> Iterator[Tensor]:
    """Batches of the folder in random order, without replacement within a pass, without end."""
    loader = DataLoader(
        folder,
        batch_size=batch_size,
        shuffle=True,
        num_workers=processes,
        pin_memory=torch.cuda.is_available(),
    )
    while True:
        yield from loader
