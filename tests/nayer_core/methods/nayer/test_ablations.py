"""Each ablation of the noisy layer does what its row in the paper's tables says."""

import pytest
import torch

from nayer_core.contract.config import DistillConfig
from nayer_core.methods.nayer.ablations import (
    AblatedNoisyLayer,
    build_noisy_layer,
    generator_input_dim,
    label_codes,
)
from nayer_core.methods.nayer.noisy_layer import NoisyLayer

K, DIM, NOISE, BATCH = 4, 8, 6, 12
LABEL_EMBEDDINGS = torch.randn(K, DIM, generator=torch.Generator().manual_seed(9))
ROWS = LABEL_EMBEDDINGS.repeat(BATCH // K, 1)


def _config(**values: object) -> DistillConfig:
    return DistillConfig.model_validate({"synthesis_batch_size": BATCH, "noise_dim": NOISE, **values})


def _layer(seed: int = 0, **values: object) -> NoisyLayer:
    layer = build_noisy_layer(LABEL_EMBEDDINGS.shape, _config(**values))
    rng = torch.Generator().manual_seed(seed)
    layer.reset(rng)
    layer.redraw(rng)
    return layer


def test_the_method_itself_is_no_ablation():
    assert type(_layer()) is NoisyLayer
    assert type(_layer(noisy_layer="one_to_one")) is NoisyLayer
    assert type(_layer(generator_input="one_hot")) is NoisyLayer


def test_one_hot_codes_replace_the_embeddings():
    assert torch.equal(label_codes(LABEL_EMBEDDINGS, _config(generator_input="one_hot")), torch.eye(K))
    assert label_codes(LABEL_EMBEDDINGS, _config()) is LABEL_EMBEDDINGS


def test_one_to_one_gives_every_image_its_own_linear():
    assert _layer(noisy_layer="one_to_one").weight.shape == (BATCH, DIM, NOISE)
    assert _layer().weight.shape == (BATCH // K, DIM, NOISE)


@pytest.mark.parametrize(
    ("generator_input", "size"), [("lte", DIM), ("noise", NOISE), ("concat", NOISE + DIM), ("sum", DIM)]
)
def test_without_a_noisy_layer_the_input_goes_straight_to_the_generator(generator_input: str, size: int):
    values = {"generator_input": generator_input, "noisy_layer": "none"}
    assert generator_input_dim(LABEL_EMBEDDINGS.shape, _config(**values)) == size
    assert _layer(**values)(ROWS).shape == (BATCH, size)


def test_sum_adds_beta_times_the_noise():
    layer = _layer(generator_input="sum", noisy_layer="none", input_noise_scale=0.5)
    assert isinstance(layer, AblatedNoisyLayer)
    torch.testing.assert_close(layer(ROWS), ROWS + 0.5 * layer.noise)


def test_noise_is_redrawn_every_round_from_the_requested_distribution():
    normal = _layer(generator_input="noise", noisy_layer="none")
    uniform = _layer(generator_input="noise", noisy_layer="none", input_noise="uniform")
    before = normal(ROWS).clone()
    normal.redraw(torch.Generator().manual_seed(5))
    assert not torch.equal(before, normal(ROWS))
    assert before.min() < 0
    assert uniform(ROWS).min() >= 0
    assert uniform(ROWS).max() <= 1


def test_without_redraw_the_linears_change_only_with_the_generator():
    layer = _layer(noisy_layer_redraw=False)
    first_weight = layer.weight.clone()
    layer.redraw(torch.Generator().manual_seed(5))
    assert torch.equal(first_weight, layer.weight)
    layer.reset(torch.Generator().manual_seed(5))
    assert not torch.equal(first_weight, layer.weight)


@pytest.mark.parametrize("architecture", ["A1", "A2"])
def test_a1_and_a2_are_without_batch_norm(architecture: str):
    layer = _layer(noisy_layer_architecture=architecture)
    noise = layer(ROWS)
    if architecture == "A1":
        torch.testing.assert_close(noise[:K], LABEL_EMBEDDINGS @ layer.weight[0])
    assert torch.equal(layer(ROWS), noise)


@pytest.mark.parametrize("architecture", ["A2", "A4"])
def test_a2_and_a4_have_a_second_linear(architecture: str):
    layer = _layer(noisy_layer_architecture=architecture)
    assert isinstance(layer, AblatedNoisyLayer)
    assert layer.second is not None
    one = _layer(noisy_layer_architecture={"A2": "A1", "A4": "A3"}[architecture])
    one.weight.data.copy_(layer.weight)
    torch.testing.assert_close(layer(ROWS)[K : 2 * K], one(ROWS)[K : 2 * K] @ layer.second[1])


@pytest.mark.parametrize(
    ("architecture", "function"), [("A5", torch.sigmoid), ("A6", torch.tanh), ("A7", torch.relu)]
)
def test_a5_to_a7_end_in_an_activation(architecture: str, function):
    plain, activated = _layer(), _layer(noisy_layer_architecture=architecture)
    activated.weight.data.copy_(plain.weight)
    torch.testing.assert_close(activated(ROWS), function(plain(ROWS)))


def test_a8_drops_half_and_follows_the_seed():
    first, again = (_layer(noisy_layer_architecture="A8")(ROWS) for _ in range(2))
    assert torch.equal(first, again)
    assert 0.2 < (first == 0).float().mean() < 0.8


@pytest.mark.parametrize("values", [{}, {"noisy_layer_redraw": False}, {"noisy_layer_architecture": "A4"}])
def test_the_state_that_outlives_a_round_can_be_restored(values: dict[str, object]):
    layer = _layer(**values)
    layer(ROWS)
    state = {name: value.clone() for name, value in layer.lasting_state().items()}
    other = _layer(seed=3, **values)
    other.restore(state)
    assert all(torch.equal(value, other.lasting_state()[name]) for name, value in state.items())
