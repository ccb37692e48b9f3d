"""The command `export`: write a network to a file for other programs.

safetensors  the weights under the network's own names, whatever layout they came in
onnx, pt2    the whole network with its normalisation inside: images in [0, 1] -> logits
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nayer_core.commands import teacher_reading
from nayer_core.commands.spec_file import read_job_spec
from nayer_core.contract.events import Emit
from nayer_core.contract.normalization import Normalization
from nayer_core.contract.spec import ExportFormat
from nayer_core.networks.network_file import Description
from nayer_core.networks.weights import file_sha256

_EXAMPLE_IMAGES = 2  # one would be taken for a constant; the exported batch may have any size


class _WithNormalization(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(normalization.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def run(args: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    """Write the network in `args.network` as `args.format` to `args.out`.

    The header of a student file describes the network. For any other file `args.spec` and
    `args.architecture` (default: recognised) do.

    Returns:
        `architecture`, `format`, `bytes` and `sha256`.

    Raises:
        NayerError: the file cannot be read, or nothing describes it.
    """
    description = _describe(args.network, args.spec, args.architecture)
    with tempfile.TemporaryDirectory() as scratch:
        teacher = teacher_reading.read_teacher(
            args.network,
            description.architecture,
            num_classes=len(description.labels),
            input_size=description.input_size,
            scratch=Path(scratch),
        )
    for warning in teacher.warnings():
        emit(warning)
    description = description.model_copy(update={"architecture": teacher.recognition.architecture})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[args.format](teacher.network, description, args.out)
    return {
        "architecture": description.architecture,
        "format": args.format,
        "bytes": args.out.stat().st_size,
        "sha256": file_sha256(args.out),
    }


def _describe(network: Path, spec: Path | None, architecture: str | None) -> Description:
    if spec is None:
        description = Description.read(network)
        return (
            description
            if architecture is None
            else description.model_copy(update={"architecture": architecture})
        )
    job = read_job_spec(spec)
    return Description(
        architecture=architecture or "auto",
        labels=job.labels,
        input_size=job.teacher.input_size,
        normalization=job.teacher.normalization,
    )


def _write_safetensors(network: nn.Module, description: Description, out: Path) -> None:
    description.save(network, out)


def _write_pt2(network: nn.Module, description: Description, out: Path) -> None:
    # The exporter accepts only its own suffix; a client may choose another.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        file = Path(folder) / "network.pt2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch to torch
            torch.export.save(_trace(network, description), file)
        file.replace(out)


def _write_onnx(network: nn.Module, description: Description, out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch to torch
        program = torch.onnx.export(
            _trace(network, description),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        program.save(out)


def _trace(network: nn.Module, description: Description) -> torch.export.ExportedProgram:
    whole = _WithNormalization(network, description.normalization).eval()
    images = torch.rand(_EXAMPLE_IMAGES, *description.input_size)
    return torch.export.export(whole, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


_WRITERS: dict[ExportFormat, Callable[[nn.Module, Description, Path], None]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "pt2": _write_pt2,
}
