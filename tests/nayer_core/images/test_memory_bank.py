"""The bank's order, bounds and restoration."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nayer_core.images.memory_bank import MemoryBank, to_bytes

CPU = torch.device("cpu")


def _round(value: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((size, 2, 2, 1), value, dtype=torch.uint8), torch.full((size,), value)


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12), capacity=st.integers(6, 20))
def test_the_newest_images_are_kept(sizes: list[int], capacity: int):
    bank = MemoryBank(capacity, (1, 2, 2), CPU)
    added: list[int] = []
    for value, size in enumerate(sizes):
        bank.add(*_round(value, size))
        added += [value] * size
    stored_labels = sorted(bank.labels[: len(bank)].tolist())
    assert stored_labels == sorted(added[-capacity:])
    assert torch.equal(bank.images[: len(bank), 0, 0, 0].long(), bank.labels[: len(bank)])
    for segment in bank.segments:
        _, labels = bank.read(segment)
        assert labels.tolist() == added[segment.start : segment.start + segment.length]


def test_restored_segments_keep_their_places():
    bank, restored = (MemoryBank(10, (1, 2, 2), CPU) for _ in range(2))
    for value in range(7):
        bank.add(*_round(value, 3))
    for segment in bank.segments:
        restored.restore(segment, *bank.read(segment))
    assert restored.added == bank.added
    for segment in bank.segments:
        assert all(map(torch.equal, bank.read(segment), restored.read(segment)))


def test_samples_come_from_the_filled_part_only():
    bank = MemoryBank(100, (1, 2, 2), CPU)
    bank.images.fill_(255)
    bank.add(*_round(7, 5))
    assert bank.sample(50, torch.Generator().manual_seed(0)).unique().tolist() == [7]


def test_bytes_round_to_the_nearest():
    images = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 1, 2, 2)
    assert to_bytes(images).flatten().tolist() == [0, 0, 1, 255]
