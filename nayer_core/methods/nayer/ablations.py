"""Other ways to bring randomness to the generator: the paper's ablations (Tables 4, 12, 15, 17).

The method itself is `noisy_layer.NoisyLayer` on label-text embeddings. Everything here exists to
be compared with it: noise beside or instead of the embeddings, no noisy layer, one Linear for each
image, no redraw, and the architectures A1 to A8.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nayer_core.contract.config import DistillConfig
from nayer_core.methods.nayer.noisy_layer import NoisyLayer

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "A5": torch.sigmoid,
    "A6": torch.tanh,
    "A7": torch.relu,
}
_DROPOUT, _DROPPED = "A8", 0.5
_WITHOUT_BATCH_NORM = ("A1", "A2")
_TWO_LINEARS = ("A2", "A4")


def label_codes(label_embeddings: Tensor, config: DistillConfig) -> Tensor:
    """Give one vector for each class to the noisy layer: its embedding, or a one-hot vector (Table 15).

    Args:
        label_embeddings: (K, embedding_dim).
        config: `generator_input` decides.

    Returns:
        (K, code_dim).
    """
    if config.generator_input == "one_hot":
        return torch.eye(label_embeddings.shape[0], device=label_embeddings.device)
    return label_embeddings


def build_noisy_layer(codes_shape: torch.Size, config: DistillConfig) -> NoisyLayer:
    """Build the layer between codes and generator: the paper's, or the ablation asked for.

    Args:
        codes_shape: (K, code_dim), the shape of `label_codes`.
        config: `generator_input`, `input_noise*` and `noisy_layer*` say which.
    """
    num_classes, code_dim = codes_shape
    sweep = 1 if config.noisy_layer == "one_to_one" else num_classes
    if _is_the_papers(config):
        return NoisyLayer(code_dim, config.noise_dim, config.synthesis_batch_size, sweep)
    return AblatedNoisyLayer(code_dim, sweep, config)


def noisy_layer_output(codes_shape: torch.Size, config: DistillConfig) -> int:
    """Size of what the generator is given."""
    if config.noisy_layer == "none":
        return _input_dim(codes_shape[1], config)
    return config.noise_dim


def _is_the_papers(config: DistillConfig) -> bool:
    return (
        config.generator_input in ("lte", "one_hot")
        and config.noisy_layer != "none"
        and config.noisy_layer_redraw
        and config.noisy_layer_architecture == "A3"
    )


def _input_dim(code_dim: int, config: DistillConfig) -> int:
    return {
        "noise": config.noise_dim,
        "concat": config.noise_dim + code_dim,
    }.get(config.generator_input, code_dim)


class AblatedNoisyLayer(NoisyLayer):
    """A noisy layer with parts exchanged or taken out.

    Args:
        code_dim: size of a class's code.
        sweep: consecutive images that share a Linear.
        config: says what is exchanged.
    """

    def __init__(self, code_dim: int, sweep: int, config: DistillConfig):
        input_dim, batch_size = _input_dim(code_dim, config), config.synthesis_batch_size
        noise_dim = 1 if config.noisy_layer == "none" else config.noise_dim
        super().__init__(input_dim, noise_dim, batch_size, sweep)
        self.config = config
        if config.noisy_layer_architecture in _WITHOUT_BATCH_NORM:
            self.batch_norm = _NoBatchNorm(input_dim)
        self.second: nn.Parameter | None = None
        if config.noisy_layer_architecture in _TWO_LINEARS:
            self.second = nn.Parameter(torch.empty(self.num_sweeps, noise_dim, noise_dim))
        self.noise: Tensor
        noise_sizes = {"noise": config.noise_dim, "concat": config.noise_dim, "sum": code_dim}
        shape = (batch_size, noise_sizes.get(config.generator_input, 0))
        self.register_buffer("noise", torch.zeros(shape), persistent=False)
        self._rng = torch.Generator()

    def reset(self, rng: torch.Generator) -> None:
        """Begin a new life together with the generator, the Linear layers included."""
        super().reset(rng)
        self._draw(rng)

    @torch.no_grad()
    def redraw(self, rng: torch.Generator) -> None:
        """Draw the round's noise and, unless that is ablated, the Linear layers."""
        self._rng = rng
        if self.config.input_noise == "normal":
            self.noise.normal_(generator=rng)
        else:
            self.noise.uniform_(generator=rng)
        if self.config.noisy_layer_redraw:
            self._draw(rng)

    @torch.no_grad()
    def _draw(self, rng: torch.Generator) -> None:
        super().redraw(rng)
        if self.second is not None:
            self.second.normal_(generator=rng)

    def lasting_state(self) -> dict[str, Tensor]:
        """What outlives a round, by name: without redraw, the Linear layers too."""
        state = self.state_dict()
        if self.config.noisy_layer_redraw:
            return {name: value for name, value in state.items() if name.startswith("batch_norm.")}
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a `lasting_state`, perhaps of a layer for larger batches: its first sweeps are kept."""
        own = self.state_dict()
        fitting = {
            name: value[: len(own[name])] if value.dim() else value
            for name, value in state.items()
            if name in own
        }
        self.load_state_dict(fitting, strict=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Turn the codes of a batch, or what stands in for them, into the generator's input.

        Args:
            embeddings: (B, code_dim).

        Returns:
            (B, noise_dim), or without a noisy layer (B, size of the input).
        """
        inputs = self._inputs(embeddings)
        if self.config.noisy_layer == "none":
            return inputs
        return self._activate(self._second_linear(super().forward(inputs)))

    def _inputs(self, codes: Tensor) -> Tensor:
        if self.config.generator_input == "noise":
            return self.noise
        if self.config.generator_input == "concat":
            return torch.cat([self.noise, codes], dim=1)
        if self.config.generator_input == "sum":
            return codes + self.config.input_noise_scale * self.noise
        return codes

    def _second_linear(self, noise: Tensor) -> Tensor:
        if self.second is None:
            return noise
        missing = self.num_sweeps * self.sweep - noise.shape[0]
        sweeps = nn.functional.pad(noise, (0, 0, 0, missing)).view(self.num_sweeps, self.sweep, -1)
        return (sweeps @ self.second).flatten(0, 1)[: noise.shape[0]]

    def _activate(self, noise: Tensor) -> Tensor:
        architecture = self.config.noisy_layer_architecture
        if architecture == _DROPOUT:
            mask = torch.rand(noise.shape, generator=self._rng, device=noise.device) >= _DROPPED
            return noise * mask / (1 - _DROPPED)
        return _ACTIVATIONS[architecture](noise) if architecture in _ACTIVATIONS else noise


class _NoBatchNorm(nn.BatchNorm1d):
    """Stands where the BatchNorm of A1 and A2 is missing."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return input
