"""The paper's source of diversity (section 3.3, Eq. 3): Linear(BatchNorm(label-text embedding)).

The embeddings never change; the Linear is drawn anew every round, so the generator sees each
class in a new guise and has to find new images for it. One Linear serves one sweep over all K
classes ("K-to-1"): within a sweep the embeddings themselves tell the images apart, and a batch
of B images needs ceil(B / K) of them, evaluated here as one batched product.
"""

import math

import torch
from torch import Tensor, nn


class NoisyLayer(nn.Module):
    """ceil(B / sweep) Linear layers behind one shared BatchNorm.

    Args:
        embedding_dim: size of a label-text embedding (CLIP ViT-B/32: 512).
        noise_dim: r, the size of the output.
        batch_size: B, images a round makes.
        sweep: consecutive images that share a Linear: all classes once ("K-to-1").
    """

    def __init__(self, embedding_dim: int, noise_dim: int, batch_size: int, sweep: int):
        super().__init__()
        self.sweep = min(sweep, batch_size)
        self.num_sweeps = math.ceil(batch_size / self.sweep)
        self.batch_norm = nn.BatchNorm1d(embedding_dim)
        self.weight = nn.Parameter(torch.empty(self.num_sweeps, embedding_dim, noise_dim))
        self.bias = nn.Parameter(torch.empty(self.num_sweeps, 1, noise_dim))

    def reset(self, rng: torch.Generator) -> None:  # noqa: ARG002 - for layers that draw more
        """Begin a new life together with the generator: the BatchNorm forgets what it learned."""
        self.batch_norm.reset_parameters()

    @torch.no_grad()
    def redraw(self, rng: torch.Generator) -> None:
        """Forget what the Linear layers learned: weights N(0, 1), biases 0. The BatchNorm stays."""
        self.weight.normal_(generator=rng)
        self.bias.zero_()

    def lasting_state(self) -> dict[str, Tensor]:
        """What outlives a round, by name."""
        return self.batch_norm.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a `lasting_state`."""
        self.batch_norm.load_state_dict(state)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Turn the embeddings of a batch into the generator's input.

        Args:
            embeddings: (B, embedding_dim); the i-th run of `sweep` rows passes the i-th Linear.

        Returns:
            (B, noise_dim).
        """
        batch_size = embeddings.shape[0]
        normalised = self.batch_norm(embeddings)
        missing = self.num_sweeps * self.sweep - batch_size
        if missing:
            normalised = nn.functional.pad(normalised, (0, 0, 0, missing))
        sweeps = normalised.view(self.num_sweeps, self.sweep, -1)
        # In float32: a copy of so many weights in another format costs as much as it saves.
        with torch.autocast(embeddings.device.type, enabled=False):
            noise = torch.baddbmm(self.bias, sweeps, self.weight)
        return noise.flatten(0, 1)[:batch_size]
