"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from nayer_core.contract.normalization import NAMED

Url = Annotated[str, typer.Option(envvar="NAYER_URL", help="Where the service answers.")]
ApiKey = Annotated[str | None, typer.Option(envvar="NAYER_API_KEY", help="Key, where it asks for one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DEFAULT_DATA_DIR = Path(".nayer")
DataDir = Annotated[Path, typer.Option(envvar="NAYER_DATA_DIR", help="Kept from run to run.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]

_READABLE = {"exists": True, "dir_okay": False, "readable": True}

Teacher = Annotated[
    Path, typer.Argument(**_READABLE, help="State dict (.pt, .pth, .th) or .safetensors of the teacher.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        **_READABLE, help="Class names in the order of the teacher's outputs: one a line, or a JSON list."
    ),
]
SpecFile = Annotated[
    Path | None, typer.Option("--spec", **_READABLE, help="Whole request as JSON; options win over it.")
]
Student = Annotated[str | None, typer.Option(help="Architecture of the student; see `architectures`.")]
Architecture = Annotated[str | None, typer.Option(help="Architecture of the teacher; default: recognised.")]
InputSize = Annotated[str | None, typer.Option(help="Channels,height,width, e.g. 3,32,32.")]
Mean = Annotated[str | None, typer.Option(help="Mean the teacher's training subtracted, per channel.")]
Std = Annotated[str | None, typer.Option(help="Deviation the teacher's training divided by, per channel.")]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="auto|raw", help="Where the file has averages of the weights too: these (auto), or not (raw)."
    ),
]
Normalization = Annotated[
    str | None,
    typer.Option(help=f"In place of --mean and --std: {', '.join(NAMED)}."),
]
Accuracy = Annotated[float | None, typer.Option(help="The teacher's accuracy in [0, 1], where known.")]
Preset = Annotated[str | None, typer.Option(help="Named configuration; see `presets`.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One field of the configuration.")
]
Metadata = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A note kept with the job.")]
Evaluation = Annotated[
    Path | None, typer.Option(**_READABLE, help=".npz with images and labels: to measure, never to train.")
]
Embeddings = Annotated[
    Path | None, typer.Option(**_READABLE, help="safetensors with a vector a class; implies encoder 'file'.")
]
TextEncoder = Annotated[str | None, typer.Option(help="auto, open_clip, sbert, file, one_hot or gaussian.")]
Prompt = Annotated[str | None, typer.Option(help="Holds {label} or {index}.")]
Whiten = Annotated[
    bool | None,
    typer.Option(
        "--whiten/--no-whiten", help="Decorrelate the embeddings over the classes; or as the preset."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Default 0.")]
OnOutOfMemory = Annotated[
    str | None,
    typer.Option(
        metavar="fail|halve",
        help="Where the device is full: name batches that fit, or go on with halved ones.",
    ),
]
ReuseBank = Annotated[
    bool | None,
    typer.Option(
        "--reuse-bank/--no-reuse-bank",
        help="Begin behind the warm-up of an earlier job with the same teacher, or leave one for later jobs.",
    ),
]
MaxRuntime = Annotated[int | None, typer.Option(metavar="SECONDS", help="The job fails after so long.")]
Webhook = Annotated[
    str | None, typer.Option(metavar="URL", help="Is notified of the job's end; see `GET /schema`.")
]
WebhookSecret = Annotated[
    str | None,
    typer.Option(
        envvar="NAYER_WEBHOOK_SECRET",
        help="whsec_...: signs the messages to the web hook. Safer in the environment.",
    ),
]
IdempotencyKey = Annotated[str | None, typer.Option(help="The same key and request: the same job.")]
