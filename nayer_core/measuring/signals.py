"""Signals of a finished run from which agreement on real images is estimated; none needs a real image.

They are taken on images of the memory bank that are patched together in pairs. Such images are new to the
student, however long it has learned from the bank, and are between classes, where networks differ. Of what
was tried they told most about agreement on real images: benchmarks/results/estimate.md.
"""

import torch
from torch import Tensor, nn

from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation, cutmix
from nayer_core.images.memory_bank import MemoryBank
from nayer_core.measuring.quality import agreement_by_class, answers

IMAGES = 1000
PATCHED = 50  # images that share a box


def measure(
    teacher: nn.Module,
    student: nn.Module,
    bank: MemoryBank,
    augment: Augmentation,
    arithmetic: Arithmetic,
    rng: torch.Generator,
) -> dict[str, float]:
    """Compute the signals of a finished student.

    Args:
        teacher: frozen.
        student: the one that a client gets.
        bank: that it has learned from.
        augment: supplies the normalisation.
        arithmetic: number format and device.
        rng: on the CPU, chooses and patches images.

    Returns:
        Shares by name. `bank.as_made`: of the images that the teacher sees as the class they were made for.
        `bank_cutmix.agree_by_class`: agreement on patched images, a mean over the classes that the teacher
        sees in them.
    """
    chosen = torch.randperm(len(bank), generator=rng)[:IMAGES].to(bank.images.device)
    images, labels = bank.images[chosen].cpu(), bank.labels[chosen].cpu()
    plain = answers(teacher, images, augment, arithmetic).logits
    mixture = patched(images, rng)
    by_teacher, by_student = (
        answers(network, mixture, augment, arithmetic).logits for network in (teacher, student)
    )
    by_class = agreement_by_class(by_student, by_teacher)
    return {
        "bank.as_made": (plain.argmax(dim=1) == labels).double().mean().item(),
        "bank_cutmix.agree_by_class": sum(by_class.values()) / len(by_class),
    }


def patched(images: Tensor, rng: torch.Generator) -> Tensor:
    """Paste a box of each image's neighbour into the image, with another box for every `PATCHED` images.

    Args:
        images: (N, H, W, C) bytes, on the CPU.
        rng: on the CPU.

    Returns:
        (N, H, W, C) bytes.
    """
    parts = [
        # (B, H, W, C) -> (B, C, H, W) -> (B, H, W, C)
        cutmix(part.permute(0, 3, 1, 2), torch.rand(3, generator=rng)).permute(0, 2, 3, 1)
        for part in images.split(PATCHED)
    ]
    return torch.cat(parts)
