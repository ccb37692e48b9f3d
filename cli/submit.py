"""`nayer submit` and `nayer validate`: from the options to a job, and from the job to the student."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cli import options, wording
from cli.display import JobDisplay, transfer
from cli.errors import RequestError
from cli.labels import read_labels
from cli.output import EXIT_FAILED, EXIT_INTERRUPTED, Output, answering
from cli.request import (
    Document,
    build_spec,
    encoder_fields,
    missing_fields,
    network_fields,
    notice_fields,
    training_fields,
)
from nayer import Client, RemoteJob, follow
from nayer.client import DEFAULT_URL
from nayer_core.contract.artifacts import STUDENT

OutFile = Annotated[Path, typer.Option("-o", "--output", help="Where the student is written.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait: print the job and return.")]


def submit(
    teacher: options.Teacher,
    labels: options.Labels = None,
    student: options.Student = None,
    output: OutFile = Path(STUDENT),
    spec: options.SpecFile = None,
    input_size: options.InputSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    normalization: options.Normalization = None,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    accuracy: options.Accuracy = None,
    preset: options.Preset = None,
    set_: options.Settings = None,
    evaluation: options.Evaluation = None,
    embeddings: options.Embeddings = None,
    text_encoder: options.TextEncoder = None,
    prompt: options.Prompt = None,
    whiten: options.Whiten = None,
    seed: options.Seed = None,
    on_out_of_memory: options.OnOutOfMemory = None,
    reuse_bank: options.ReuseBank = None,
    max_runtime: options.MaxRuntime = None,
    metadata: options.Metadata = None,
    webhook: options.Webhook = None,
    webhook_secret: options.WebhookSecret = None,
    idempotency_key: options.IdempotencyKey = None,
    detach: Detach = False,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Send a teacher and its class names, follow the job, and fetch the student."""
    values = normalization or (mean, std)
    with answering(as_json) as out, Client(url, api_key) as client:
        document = build_spec(
            spec,
            _labels(out, labels),
            network_fields(student, architecture, input_size, values, accuracy, weights),
            training_fields(preset, set_, seed, on_out_of_memory, reuse_bank, max_runtime),
            encoder_fields(text_encoder, embeddings, prompt, whiten),
            notice_fields(metadata, webhook),
            webhook_secret=webhook_secret,
        )
        job = _send(client, out, teacher, document, evaluation, embeddings, idempotency_key=idempotency_key)
        if detach:
            out.result(job.model_dump(mode="json"), job.id)
        else:
            deliver(client, out, follow_to_end(client, out, job.id), output, teacher)


def validate(
    teacher: options.Teacher,
    labels: options.Labels = None,
    student: options.Student = None,
    spec: options.SpecFile = None,
    input_size: options.InputSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    normalization: options.Normalization = None,
    architecture: options.Architecture = None,
    weights: options.Weights = None,
    preset: options.Preset = None,
    set_: options.Settings = None,
    evaluation: options.Evaluation = None,
    embeddings: options.Embeddings = None,
    text_encoder: options.TextEncoder = None,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Have the files and the request inspected, without distilling; prints the report."""
    with answering(as_json) as out, Client(url, api_key) as client:
        document = build_spec(
            spec,
            _labels(out, labels),
            network_fields(student, architecture, input_size, normalization or (mean, std), weights=weights),
            training_fields(preset, set_),
            encoder_fields(text_encoder, embeddings),
        )
        job = _send(client, out, teacher, document, evaluation, embeddings, dry_run=True)
        job = follow_to_end(client, out, job.id)
        end(out, job, job.model_dump(mode="json"), json.dumps(job.teacher, indent=2), teacher)


def follow_to_end(client: Client, out: Output, job_id: str) -> RemoteJob:
    """Follow a job with a display; Ctrl-C leaves the job running and prints how to continue."""
    try:
        with JobDisplay(out.messages) as display:
            return follow(client, job_id, display.event, display.trouble)
    except KeyboardInterrupt:
        out.say(f"The job goes on. Watch it: nayer watch {job_id}   Stop it: nayer cancel {job_id}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def deliver(client: Client, out: Output, job: RemoteJob, path: Path, teacher: Path) -> None:
    """Fetch the student of a job that succeeded, and end with the job's exit code.

    Args:
        client: the service.
        out: where the result goes.
        job: has ended.
        path: where the student is written.
        teacher: the file that was sent.
    """
    document: Document = {"job": job.model_dump(mode="json")}
    if job.succeeded:
        with transfer(out.messages, "student") as on_bytes:
            sha256 = client.download(job.id, STUDENT, path, on_bytes)
        document |= {"path": str(path), "sha256": sha256, "bytes": path.stat().st_size}
    end(out, job, document, str(path), teacher)


def end(out: Output, job: RemoteJob, document: Document, text: str, teacher: Path | None = None) -> None:
    """Print how the job ended; exit 1 unless it succeeded.

    Args:
        out: where the result goes.
        job: has ended.
        document: printed with --json.
        text: printed without it, of a job that succeeded.
        teacher: the file that was sent, where it is known here.
    """
    if job.succeeded:
        if job.quality is not None:
            out.say(escape(wording.agreement(job.quality)))
        out.result(document, text)
        return
    error = job.error or {}
    hint = wording.in_options(error.get("hint") or "")
    out.problem(
        error.get("code") or job.status,
        wording.in_options(error.get("message") or f"The job was {job.status}."),
        wording.with_file(hint, teacher) if teacher else hint,
    )
    if out.as_json:
        out.result(document, "")
    raise typer.Exit(EXIT_FAILED)


def _labels(out: Output, path: Path | None) -> Document:
    """Read the class names, and print what they were read from where that was no plain list."""
    if path is None:
        return {}
    labels = read_labels(path)
    if labels.form is not None:
        out.say(escape(str(labels)))
    return {"labels": labels.names}


def _send(
    client: Client,
    out: Output,
    teacher: Path,
    document: Document,
    evaluation: Path | None,
    embeddings: Path | None,
    *,
    idempotency_key: str | None = None,
    dry_run: bool = False,
) -> RemoteJob:
    missing = missing_fields(document)
    if missing:
        raise RequestError("request_incomplete", *wording.missing(missing))
    with transfer(out.messages, "upload") as on_bytes:
        job = client.submit(
            teacher,
            document,
            evaluation=evaluation,
            embeddings=embeddings,
            idempotency_key=idempotency_key,
            dry_run=dry_run,
            on_bytes=on_bytes,
        )
    out.say(f"job [bold]{escape(job.id)}[/]")
    return job
