"""A network in a file with a description: safetensors with a header that names the network."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.contract.normalization import Normalization
from nayer_core.networks.weights import save_weights

# One key: the library writes several in no fixed order, and equal students should be equal files.
HEADER_KEY = "network"


class Description(BaseModel):
    """The description that is needed to use a network.

    Attributes:
        architecture: a name of GET /architectures.
        labels: class names in the order of the outputs.
        input_size: (channels, height, width).
        normalization: applied first to images in [0, 1].
    """

    model_config = ConfigDict(frozen=True)

    architecture: str
    labels: tuple[str, ...]
    input_size: tuple[int, int, int]
    normalization: Normalization

    def save(self, network: nn.Module, path: Path) -> None:
        """Write the weights of `network` with this description."""
        save_weights(network, path, {HEADER_KEY: self.model_dump_json()})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the description in a file's header.

        Raises:
            SpecError: `invalid_command` if there is none.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
            return cls.model_validate_json(metadata[HEADER_KEY])
        except (SafetensorError, KeyError, ValidationError) as error:
            raise SpecError(
                ErrorCode.INVALID_COMMAND,
                f"{path.name} does not say which network it holds, as a student file does.",
                "Give --spec with the document its job was made with, and --architecture.",
            ) from error
