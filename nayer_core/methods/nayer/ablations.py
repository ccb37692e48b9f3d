"""Other sources of randomness for the generator: the paper's ablations (Tables 4, 12, 15, 17).

The method itself is `noisy_layer.NoisyLayer` on label-text embeddings. The variants here are compared with
it: noise beside or instead of the embeddings, no noisy layer, one Linear for each image, no redraw, and the
architectures A1 to A8.
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
    """Return the noisy layer's input for each class: its embedding, or a one-hot vector (Table 15).

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
    """Build the layer between codes and generator: the paper's, or an ablation.

    Args:
        codes_shape: (K, code_dim), the shape of `label_codes`.
        config: `generator_input`, `input_noise*` and `noisy_layer*` say which.
    """
    num_classes, code_dim = codes_shape
    sweep = 1 if config.noisy_layer == "one_to_one" else num_classes
    if _is_the_papers(config):
        return NoisyLayer(code_dim, config.noise_dim, config.synthesis_batch_size, sweep)
    return AblatedNoisyLayer(code_dim, sweep, config)


def generator_input_dim(codes_shape: torch.Size, config: DistillConfig) -> int:
    """Size of the generator's input vector."""
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
    """A noisy layer with parts replaced or removed.

    Args:
        code_dim: size of a class's code.
        sweep: consecutive images that share a Linear.
        config: `generator_input`, `input_noise*` and `noisy_layer*` say which parts.
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
        """Start again together with a new generator; the Linear layers are drawn too."""
        super().reset(rng)
        self._draw(rng)

    @torch.no_grad()
    def redraw(self, rng: torch.Generator) -> None:
        """Draw the round's noise and, unless `noisy_layer_redraw` is off, the Linear layers."""
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
        """The tensors that outlive a round, by name; without redraw these include the Linear layers."""
        state = self.state_dict()
        if self.config.noisy_layer_redraw:
            return {name: value for name, value in state.items() if name.startswith("batch_norm.")}
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Return to a `lasting_state`. Of a layer for larger batches, the first sweeps are taken."""
        own = self.state_dict()
        fitting = {
            name: value[: len(own[name])] if value.dim() else value
            for name, value in state.items()
            if name in own
        }
        self.load_state_dict(fitting, strict=False)

    def forward(self, batch_codes: Tensor) -> Tensor:
        """Turn the codes of a batch, or their replacement, into the generator's input.

        Args:
            batch_codes: (B, code_dim).

        Returns:
            (B, noise_dim), or without a noisy layer (B, size of the input).
        """
        inputs = self._inputs(batch_codes)
        if self.config.noisy_layer == "none":
            return inputs
        return self._activate(self._second_linear(super().forward(inputs)))

    def _inputs(self, batch_codes: Tensor) -> Tensor:
        if self.config.generator_input == "noise":
            return self.noise
        if self.config.generator_input == "concat":
            return torch.cat([self.noise, batch_codes], dim=1)
        if self.config.generator_input == "sum":
            return batch_codes + self.config.input_noise_scale * self.noise
        return batch_codes

    def _second_linear(self, generator_input: Tensor) -> Tensor:
        if self.second is None:
            return generator_input
        missing = self.num_sweeps * self.sweep - generator_input.shape[0]
        sweeps = nn.functional.pad(generator_input, (0, 0, 0, missing)).view(self.num_sweeps, self.sweep, -1)
        return (sweeps @ self.second).flatten(0, 1)[: generator_input.shape[0]]

    def _activate(self, generator_input: Tensor) -> Tensor:
        architecture = self.config.noisy_layer_architecture
        if architecture == _DROPOUT:
            mask = (
                torch.rand(generator_input.shape, generator=self._rng, device=generator_input.device)
                >= _DROPPED
            )
            return generator_input * mask / (1 - _DROPPED)
        return (
            _ACTIVATIONS[architecture](generator_input) if architecture in _ACTIVATIONS else generator_input
        )


class _NoBatchNorm(nn.BatchNorm1d):
    """Takes the place of the BatchNorm that A1 and A2 do not have."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return input
