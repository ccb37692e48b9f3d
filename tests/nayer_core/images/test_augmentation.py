"""Crops and mirrors against slicing, their gradients against autograd's, and CutMix."""

import torch
from torch.nn import functional as F

from nayer_core.images.augmentation import Augmentation, _shift_and_mirror, _ShiftAndMirror, cutmix


def _augmentation(crop_padding: int = 2, *, flip: bool = True) -> Augmentation:
    return Augmentation(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4]), crop_padding, flip)


def test_shift_and_mirror_is_a_crop_of_the_padded_image():
    images = torch.rand(6, 5, 7, 3)
    down, right = torch.tensor([-2, -1, 0, 1, 2, 0]), torch.tensor([2, 0, -2, 1, -1, 0])
    mirrored = torch.tensor([True, False, True, False, True, False])
    padded = F.pad(images, (0, 0, 2, 2, 2, 2))
    moved = _shift_and_mirror(images, down, right, mirrored)
    for index in range(6):
        row, column = 2 + int(down[index]), 2 + int(right[index])
        crop = padded[index, row : row + 5, column : column + 7]
        assert torch.equal(moved[index], crop.flip(1) if mirrored[index] else crop)


def test_the_backward_pass_is_the_adjoint():
    images = torch.rand(8, 5, 7, 2, dtype=torch.float64, requires_grad=True)
    rng = torch.Generator().manual_seed(0)
    down, right = torch.randint(-3, 4, (2, 8), generator=rng)
    mirrored = torch.rand(8, generator=rng) < 0.5
    assert torch.autograd.gradcheck(lambda x: _ShiftAndMirror.apply(x, down, right, mirrored), images)


def test_bytes_and_floats_come_out_alike():
    images = torch.randint(0, 256, (4, 6, 6, 3), dtype=torch.uint8)
    augment = _augmentation()
    views = augment.draw(4, torch.Generator().manual_seed(1))
    as_bytes, as_floats = augment(images, views), augment(images / 255, views)
    torch.testing.assert_close(as_bytes, as_floats)
    assert as_bytes.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_is_per_channel_and_padding_is_black():
    augment = _augmentation(0, flip=False)
    images = torch.rand(4, 6, 6, 3)
    expected = ((images - augment.mean) / augment.std).permute(0, 3, 1, 2)
    torch.testing.assert_close(augment(images, augment.draw(4, torch.Generator())), expected)
    far = _augmentation(6, flip=False)
    shifted = far(torch.ones(64, 6, 6, 3), far.draw(64, torch.Generator().manual_seed(0)))
    values = {tuple(pixel) for pixel in shifted.permute(0, 2, 3, 1).reshape(-1, 3).round(decimals=3).tolist()}
    assert len(values) == 2  # the image's white and the padding's black


def test_cutmix_takes_a_box_of_the_neighbour():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    mixed = cutmix(images, torch.rand(3, generator=torch.Generator().manual_seed(0)))
    for index in range(4):
        assert set(mixed[index].unique().tolist()) == {float(index), float((index - 1) % 4)}
    boxes = mixed[0, 0] == 3
    assert torch.equal(boxes, mixed[1, 0] == 0)
    rows, columns = boxes.any(1), boxes.any(0)
    assert boxes.sum() == rows.sum() * columns.sum()
