"""The paper's source of diversity (section 3.3, Eq. 3): Linear(BatchNorm(label-text embedding)).

The embeddings never change. The Linear is redrawn every round, so the generator gets a new vector for each
class and has to find new images for it. One Linear serves one sweep over all K classes ("K-to-1"): within a
sweep each image has a different embedding. A batch of B images needs ceil(B / K) Linear layers, which are
evaluated here as one batched product.
"""

import math

import torch
from torch import Tensor, nn


class NoisyLayer(nn.Module):
    """ceil(B / sweep) Linear layers after one shared BatchNorm.

    Args:
        code_dim: size of a class's code, usually its label-text embedding (CLIP ViT-B/32: 512).
        noise_dim: r, the size of the output.
        batch_size: B, images a round makes.
        sweep: consecutive images that share a Linear: all classes once ("K-to-1").
    """

    def __init__(self, code_dim: int, noise_dim: int, batch_size: int, sweep: int):
        super().__init__()
        self.sweep = min(sweep, batch_size)
        self.num_sweeps = math.ceil(batch_size / self.sweep)
        self.batch_norm = nn.BatchNorm1d(code_dim)
        self.weight = nn.Parameter(torch.empty(self.num_sweeps, code_dim, noise_dim))
        self.bias = nn.Parameter(torch.empty(self.num_sweeps, 1, noise_dim))

    def reset(self, rng: torch.Generator) -> None:  # noqa: ARG002 - for layers that draw more
        """Start again together with a new generator: the BatchNorm forgets what it learned."""
        self.batch_norm.reset_parameters()

    @torch.no_grad()
    def redraw(self, rng: torch.Generator) -> None:
        """Redraw the Linear layers: weights N(0, 1), biases 0. The BatchNorm does not change."""
        self.weight.normal_(generator=rng)
        self.bias.zero_()

    def lasting_state(self) -> dict[str, Tensor]:
        """The tensors that outlive a round, by name."""
        return self.batch_norm.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Return to a `lasting_state`."""
        self.batch_norm.load_state_dict(state)

    def forward(self, batch_codes: Tensor) -> Tensor:
        """Turn the codes of a batch into the generator's input.

        Args:
            batch_codes: (B, code_dim); the i-th group of `sweep` rows passes the i-th Linear.

        Returns:
            (B, noise_dim).
        """
        batch_size = batch_codes.shape[0]
        normalised = self.batch_norm(batch_codes)  # (B, code_dim)
        missing = self.num_sweeps * self.sweep - batch_size
        if missing:
            # (B, code_dim) -> (num_sweeps * sweep, code_dim)
            normalised = nn.functional.pad(normalised, (0, 0, 0, missing))
        sweeps = normalised.view(self.num_sweeps, self.sweep, -1)  # (num_sweeps, sweep, code_dim)
        # In float32: a copy of so many weights in another format costs as much as it saves.
        with torch.autocast(batch_codes.device.type, enabled=False):
            # (num_sweeps, sweep, code_dim) -> (num_sweeps, sweep, noise_dim)
            generator_input = torch.baddbmm(self.bias, sweeps, self.weight)
        return generator_input.flatten(0, 1)[:batch_size]  # (B, noise_dim)
