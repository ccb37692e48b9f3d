"""The noisy layer against one Linear after the other, and the choice of labels."""

import pytest
import torch
from torch import nn

from nayer_core.methods.nayer.noisy_layer import NoisyLayer
from nayer_core.tasks.classification import sweep_labels


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("num_classes", "batch_size"), [(4, 12), (4, 14), (10, 6)])
def test_each_sweep_passes_its_own_linear(num_classes: int, batch_size: int):
    layer = NoisyLayer(code_dim=8, noise_dim=5, batch_size=batch_size, sweep=num_classes)
    layer.redraw(_rng())
    embeddings = torch.randn(batch_size, 8, generator=_rng(1))
    normalised = nn.BatchNorm1d(8)(embeddings)
    sweep = min(num_classes, batch_size)
    expected = [
        run @ layer.weight[index] + layer.bias[index] for index, run in enumerate(normalised.split(sweep))
    ]
    torch.testing.assert_close(layer(embeddings), torch.cat(expected))


def test_redraw_gives_unit_normal_weights_and_leaves_the_batch_norm():
    layer = NoisyLayer(code_dim=64, noise_dim=200, batch_size=40, sweep=10)
    layer.batch_norm.weight.data.fill_(3.0)
    layer.redraw(_rng())
    first = layer.weight.clone()
    layer.bias.data.fill_(1.0)
    layer.redraw(_rng(1))
    assert not torch.equal(first, layer.weight)
    assert layer.bias.abs().max() == 0
    assert layer.batch_norm.weight.min() == 3.0
    assert layer.weight.mean().abs() < 0.02
    assert abs(layer.weight.std().item() - 1) < 0.02


def test_same_class_in_two_sweeps_gets_two_inputs():
    layer = NoisyLayer(code_dim=8, noise_dim=16, batch_size=6, sweep=3)
    layer.redraw(_rng())
    embeddings = torch.randn(3, 8, generator=_rng(1)).repeat(2, 1)
    noise = layer(embeddings)
    assert (noise[:3] - noise[3:]).abs().min(dim=1).values.max() > 0
    assert not torch.allclose(noise[:3], noise[3:])


def test_large_batches_hold_whole_sweeps_and_a_part_without_repeats():
    labels = sweep_labels(num_classes=10, batch_size=23, round_index=0, rng=_rng())
    assert labels[:20].tolist() == [*range(10), *range(10)]
    assert len(set(labels[20:].tolist())) == 3


@pytest.mark.parametrize("batch_size", [4, 5, 7])
def test_small_batches_walk_through_all_classes(batch_size: int):
    rounds = -(-20 // batch_size)
    batches = [sweep_labels(20, batch_size, index, _rng()) for index in range(2 * rounds)]
    assert all(len(set(batch.tolist())) == batch_size for batch in batches)
    assert set(torch.cat(batches[:rounds]).tolist()) == set(range(20))
    assert set(torch.cat(batches[rounds:]).tolist()) == set(range(20))
    assert not torch.equal(torch.cat(batches[:rounds]), torch.cat(batches[rounds:]))
