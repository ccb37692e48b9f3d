"""Generator and noisy layers as the authors ran them."""

import torch
from torch import Tensor, nn

NOISE_DIM = 1000


class PublishedGenerator(nn.Module):
    """Noise to images: convolutions at half and full size; no spectral normalisation.

    Args:
        image_size: side in pixels, a multiple of 4.
        channels: of the images.
        width: channels before the last convolution; twice as many before that.
    """

    def __init__(self, image_size: int, channels: int = 3, width: int = 64):
        super().__init__()
        self.side, self.wide = image_size // 4, 2 * width
        self.first = nn.Linear(NOISE_DIM, self.wide * self.side**2)
        self.convolutions = nn.Sequential(
            nn.BatchNorm2d(self.wide),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(self.wide, self.wide, 3, padding=1),
            nn.BatchNorm2d(self.wide),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(self.wide, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """(B, 1000) to (B, channels, side, side) in [0, 1]."""
        features = self.first(noise).view(-1, self.wide, self.side, self.side)
        images: Tensor = self.convolutions(features)
        return images


class NoisyLayers(nn.Module):
    """One BatchNorm and, for each sweep over the classes, a Linear of its own.

    Args:
        embedding_dim: size of a class's embedding.
        num_classes: K, the images that share a Linear.
        batch_size: images a round makes.
    """

    def __init__(self, embedding_dim: int, num_classes: int, batch_size: int):
        super().__init__()
        self.num_classes = num_classes
        self.batch_norm = nn.BatchNorm1d(embedding_dim)
        sweeps = -(-batch_size // num_classes)
        self.linears = nn.ModuleList([nn.Linear(embedding_dim, NOISE_DIM) for _ in range(sweeps)])

    def redraw(self) -> None:
        """Redraw the Linears: weights N(0, 1), biases 0. The BatchNorm does not change."""
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)  # noqa: S101 - a ModuleList forgets what it holds
            nn.init.normal_(linear.weight, 0.0, 1.0)
            nn.init.zeros_(linear.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, embedding_dim) to (B, 1000); the i-th K images pass the i-th Linear."""
        parts = self.batch_norm(embeddings).split(self.num_classes)
        return torch.cat([linear(part) for linear, part in zip(self.linears, parts, strict=True)])
